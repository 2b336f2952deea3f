"""What training refuses."""

from helios_engine.errors import CheckpointError


class TrainingError(CheckpointError):
    """A file, a field or a run that training cannot go on with; the message says which, and what is allowed.

    Like its kind it is one line on the command line.
    """
