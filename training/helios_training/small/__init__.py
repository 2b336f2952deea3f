"""The small Helios: sizes, vocabulary and scheduler settings, written as checkpoints in the published layout."""
