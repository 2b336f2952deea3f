"""The three stages: Base, Mid, Distilled. Each file holds one objective, with its formula."""
