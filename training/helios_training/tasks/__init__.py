"""What `helios train` runs: a stage's objective with its data, recipe and samples, for the trainer's loop."""
