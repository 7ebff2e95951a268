"""Composed slides: drawn or patched together, of any size, with their truth. Start at `write_phantom`."""

from __future__ import annotations

from lobule.phantom.spec import FieldImages, PhantomSpec, read_field_labels
from lobule.phantom.truth import read_truth, truth_mask
from lobule.phantom.write import PhantomTruth, write_phantom

__all__ = [
    "FieldImages",
    "PhantomSpec",
    "PhantomTruth",
    "read_field_labels",
    "read_truth",
    "truth_mask",
    "write_phantom",
]
