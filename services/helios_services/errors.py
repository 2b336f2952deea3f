"""What all errors have in common that a user can mend."""


class ExpectedError(Exception):
    """A fault of the call, the configuration or the surroundings. Its message says all that the user needs, so the
    command line prints it without a traceback.
    """
