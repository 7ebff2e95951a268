"""Metrics in NumPy: pixels, classes, instances, and how sure one can be of them."""
