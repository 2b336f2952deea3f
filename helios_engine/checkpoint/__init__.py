"""Checkpoints in the published diffusers layout: opening, strict loading, checking, and tiny random ones for tests."""

from helios_engine.checkpoint.open import Checkpoint, open_checkpoint
from helios_engine.checkpoint.weights import load_weights

__all__ = ["Checkpoint", "load_weights", "open_checkpoint"]
