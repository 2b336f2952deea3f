"""Processes of one machine: kept alive, one for each state folder, and none left behind."""
