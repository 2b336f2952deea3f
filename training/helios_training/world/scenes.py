"""What a clip shows, and the caption that says so.

Lengths are in heights of the picture, speeds in heights per second, colours in 8-bit RGB: what a metric measures
against, and what the model card states.
"""

import random
import re
from dataclasses import astuple, dataclass
from functools import cache
from itertools import product

FPS = 24
DIAMETERS = {"small": 0.26, "big": 0.44}
COLOURS = {
    "red": (222, 40, 48),
    "green": (36, 196, 76),
    "blue": (40, 72, 228),
    "yellow": (250, 218, 44),
    "white": (246, 246, 246),
    "purple": (146, 56, 200),
    "orange": (248, 128, 24),
    "cyan": (40, 214, 230),
}
SHAPES = ("ball", "square", "triangle", "ring")
SPEEDS = {"slowly": 0.15, "quickly": 0.45}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""As (x, y) steps in a picture whose y grows downwards."""
PLACES = ("night", "sky", "meadow", "desert", "sea")
HELD_OUT = 48

_CAPTION = re.compile(r"a (\w+) (\w+) (\w+) moves (\w+) (\w+) over the (\w+)")


@dataclass(frozen=True, order=True)
class Scene:
    """One object in front of one background. Raises ValueError for a word that the world does not know."""

    size: str
    colour: str
    shape: str
    speed: str
    direction: str
    place: str

    def __post_init__(self) -> None:
        for (name, allowed), value in zip(_WORDS.items(), astuple(self), strict=True):
            if value not in allowed:
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: {', '.join(allowed)}")

    @property
    def caption(self) -> str:
        """The sentence that the model is prompted with."""
        return f"a {self.size} {self.colour} {self.shape} moves {self.speed} {self.direction} over the {self.place}"

    @classmethod
    def from_caption(cls, caption: str) -> "Scene":
        """The scene that a caption describes. Raises ValueError."""
        match = _CAPTION.fullmatch(caption.strip().lower().rstrip("."))
        if match is None:
            example = "'a small red ball moves slowly left over the sea'"
            raise ValueError(f"caption: {caption!r} is not allowed; allowed: a sentence like {example}")
        return cls(*match.groups())


_WORDS = {
    "size": tuple(DIAMETERS),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "speed": tuple(SPEEDS),
    "direction": tuple(DIRECTIONS),
    "place": PLACES,
}


@cache
def all_scenes() -> tuple[Scene, ...]:
    """Every scene of the world, 2,560."""
    return tuple(Scene(*words) for words in product(*_WORDS.values()))


@cache
def held_out_scenes() -> tuple[Scene, ...]:
    """The scenes that no training sees: what the aims are measured on. Every word occurs among them."""
    return tuple(random.Random(48).sample(all_scenes(), HELD_OUT))


@cache
def training_scenes() -> tuple[Scene, ...]:
    """All others."""
    held_out = frozenset(held_out_scenes())
    return tuple(scene for scene in all_scenes() if scene not in held_out)
