"""Requests validate themselves: every bad field is refused with its name, its value and what is allowed."""

from typing import Any

import pytest

from helios_engine.errors import InvalidField
from helios_engine.request import GenerationRequest

BAD: list[tuple[str, Any, str]] = [
    ("prompt", "", "1 to 8,000 characters"),
    ("prompt", " \n", "not only white space"),
    ("prompt", "a\0b", "no NUL"),
    ("prompt", "x" * 8001, "this one has 8,001"),
    ("prompt", None, "1 to 8,000 characters"),
    ("num_frames", 0, "from 1 to"),
    ("num_frames", -33, "from 1 to"),
    ("num_frames", 33.0, "an integer"),
    ("num_frames", True, "an integer"),
    ("height", 0, "multiple of 64"),
    ("height", 100, "nearest: 64 or 128"),
    ("width", 20, "nearest: 64"),
    ("width", float("nan"), "multiple of 64"),
    ("seed", -1, "from 0 to 9223372036854775807"),
    ("seed", 2**63, "from 0 to 9223372036854775807"),
    ("fps", 0, "from 1 to 120"),
    ("pyramid_steps", (1, 1), "3 integers from 1 to 50"),
    ("pyramid_steps", (1, 0, 1), "3 integers from 1 to 50"),
    ("pyramid_steps", (1, 51, 1), "3 integers from 1 to 50"),
    ("pyramid_steps", [1, 1, 1], "3 integers from 1 to 50"),
    ("amplify_first_chunk", 1, "true or false"),
    ("guidance_scale", float("nan"), "1.0"),
    ("guidance_scale", 5.0, "1.0"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD, ids=lambda value: str(value)[:20])
def test_bad_field_is_named_with_value_and_bounds(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(InvalidField) as caught:
        GenerationRequest(**{"prompt": "a lake", field: value})
    message = str(caught.value)
    assert message.startswith(f"{field}: ")
    assert allowed in message
    assert repr(value)[:10] in message
    assert len(message) < 300  # a 10 MB prompt does not come back


@pytest.mark.parametrize(("frames", "chunks"), [(1, 1), (33, 1), (34, 2), (66, 2), (1452, 44)])
def test_frames_round_up_to_whole_chunks(frames: int, chunks: int) -> None:
    assert GenerationRequest(prompt="a lake", num_frames=frames).num_chunks == chunks
