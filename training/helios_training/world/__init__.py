"""The procedural world that the small model learns: captions, and clips drawn from a caption and a seed."""

from helios_training.world.clips import Clip, draw_clip
from helios_training.world.scenes import Scene, all_scenes, held_out_scenes, training_scenes

__all__ = ["Clip", "Scene", "all_scenes", "draw_clip", "held_out_scenes", "training_scenes"]
