"""The small VAE in Wan's layout, and its training."""
