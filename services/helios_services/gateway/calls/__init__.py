"""What a caller can ask for, whichever door the call came through."""
