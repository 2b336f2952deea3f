"""The small model's tokenizer: the world's words whole, everything else by letters."""

from pathlib import Path
from typing import Any

from helios_training.world.scenes import COLOURS, DIAMETERS, DIRECTIONS, PLACES, SHAPES, SPEEDS

SENTENCE = ("a", "moves", "over", "the")
LATER = (
    "and", "then", "two", "an", "of", "in", "on", "at", "with", "to", "is", "from", "behind", "near", "small", "camera",
    "pans", "zooms", "out", "stays", "still", "turns", "picture", "photo", "cat", "coffee", "cup", "rocket", "flower",
    "temple", "astronaut", "pixel", "grey", "style", "bright", "dark", "snow", "city",
)  # fmt: skip
"""Words that nothing is trained on yet: embeddings are there for a world that grows."""


def vocabulary() -> list[tuple[str, float]]:
    """Pieces and scores of the unigram tokenizer; a word's one piece beats its letters."""
    words = dict.fromkeys((*SENTENCE, *DIAMETERS, *COLOURS, *SHAPES, *SPEEDS, *DIRECTIONS, *PLACES, *LATER))
    letters = [chr(code) for code in range(33, 127)]
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    return [*specials, *((f"▁{word}", -2.0) for word in words), *((letter, -4.0) for letter in letters)]


def make_tokenizer() -> Any:
    """A T5 tokenizer of transformers."""
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=vocabulary(), extra_ids=0)


def save_tokenizer(folder: Path) -> None:
    """Writes the files that transformers and the engine read."""
    make_tokenizer().save_pretrained(folder)
