"""One slide from pixels to files, and many slides with resume and locks."""

from lobule.analysis.options import Options
from lobule.analysis.single import Result, analyze

__all__ = ["Options", "Result", "analyze"]
