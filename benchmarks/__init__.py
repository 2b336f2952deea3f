"""Everything that prints a performance figure. Run modules from the repository root: `python -m benchmarks.service`."""
