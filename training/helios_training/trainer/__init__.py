"""One loop for every stage: optimisers, averages, snapshots, progress."""

from helios_training.trainer.loop import RunSettings, train
from helios_training.trainer.parts import Part, Recipe

__all__ = ["Part", "Recipe", "RunSettings", "train"]
