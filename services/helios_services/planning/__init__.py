"""What `helios up` makes of a machine: the configuration with everything filled in that was left to it."""
