"""Checkpoints into models: loaders, the check that loads nothing, and the tiny checkpoint for tests."""
