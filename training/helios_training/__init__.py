"""Helios' training: the world of its small model, its VAE, and the stages Base, Mid and Distilled. Knows the engine."""
