"""What the model remembers while it is trained: which section, which of its past, and how that is spoilt."""
