"""Pages of the documentation that are written from the code, and the checks of what has been built."""
