"""Metrics of generated videos that need no download, and how they drift: `python -m benchmarks.bench`."""
