"""What training refuses."""


class TrainingError(ValueError):
    """A file, a field or a run that training cannot go on with; the message says which, and what is allowed."""
