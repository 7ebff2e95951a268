"""One slide from pixels to files, and many slides with resume and locks."""

from lobule.analyze.options import Options
from lobule.analyze.single import Result, analyze

__all__ = ["Options", "Result", "analyze"]
