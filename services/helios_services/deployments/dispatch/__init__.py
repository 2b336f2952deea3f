"""Drives claimed jobs chunk by chunk: knows the store and the stages, not Ray."""
