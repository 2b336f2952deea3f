"""Ways to run one checkpoint that are compared: steps, anchor, amplified first chunk."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_engine.errors import InvalidField
from helios_engine.request import GenerationRequest
from helios_engine.variants import resolve

WORDS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "no-anchor": {"keep_first_frame": False},
    "amplified": {"amplify_first_chunk": True},
}
ALLOWED = f"{', '.join(WORDS)}, steps like 1-1-1 (pyramid) or 50 (Base), or several of them joined by +"


@dataclass(frozen=True, kw_only=True)
class Way:
    """name: as it is given, and what the videos' folder is called by. fields: of GenerationRequest."""

    name: str
    fields: Mapping[str, Any]

    def fits(self, variant: str) -> bool:
        """Whether a variant takes these fields."""
        try:
            resolve(GenerationRequest(prompt="-", height=64, width=64, **self.fields), variant)
        except InvalidField:
            return False
        return True


def parse_way(text: str) -> Way:
    """For example "2-2-2+no-anchor". Raises ValueError for a word that is none."""
    fields: dict[str, Any] = {}
    for word in text.split("+"):
        if word in WORDS:
            fields |= WORDS[word]
        elif re.fullmatch(r"\d+(-\d+)+", word):
            fields["pyramid_steps"] = tuple(map(int, word.split("-")))
        elif re.fullmatch(r"\d+", word):
            fields["num_inference_steps"] = int(word)
        else:
            raise ValueError(f"variants: {text!r} is not allowed; allowed: {ALLOWED}")
    GenerationRequest(prompt="-", height=64, width=64, **fields)
    return Way(name=text, fields=fields)
