"""Requests validate themselves: every bad field is refused with its name, its value and what is allowed."""

import json
from typing import Any

import numpy as np
import pytest

from helios_engine.errors import InvalidField
from helios_engine.prompts import ScheduledPrompt
from helios_engine.request import MEDIA, GenerationRequest

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
    ("height", 0, "multiple of 16"),
    ("height", 100, "nearest: 96 or 112"),
    ("width", 10, "nearest: 16"),
    ("width", float("nan"), "multiple of 16"),
    ("seed", -1, "from 0 to 9223372036854775807"),
    ("seed", 2**63, "from 0 to 9223372036854775807"),
    ("fps", 0, "from 1 to 120"),
    ("pyramid_steps", (1, 1), "3 integers from 1 to 50"),
    ("pyramid_steps", (1, 0, 1), "3 integers from 1 to 50"),
    ("pyramid_steps", (1, 51, 1), "3 integers from 1 to 50"),
    ("pyramid_steps", [1, 1, 1], "3 integers from 1 to 50"),
    ("amplify_first_chunk", 1, "true or false"),
    ("guidance_scale", float("nan"), "from 1 to 100"),
    ("guidance_scale", 0.5, "from 1 to 100"),
    ("num_inference_steps", 0, "from 1 to 200"),
    ("shift", 0.0, "from 0.01 to 100"),
    ("zero_steps", -1, "from 0 to 50"),
    ("zero_init", 1, "true or false"),
    ("keep_first_frame", None, "true or false"),
    ("image_noise_sigma", (0.2, 0.1), "minimum and maximum"),
    ("video_noise_sigma", [0.1, 0.2], "minimum and maximum"),
    ("negative_prompt", "   ", "not only white space"),
    ("image", np.zeros((64, 64, 3)), "uint8 of shape (384, 640, 3)"),
    ("image", "cat.png", "uint8 of shape (384, 640, 3)"),
    ("video", np.zeros((32, 384, 640, 3), np.uint8), "at least 33 frames"),
    ("prompt_schedule", ["a cat"], "a tuple of ScheduledPrompt"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD, ids=lambda value: str(value)[:20])
def test_bad_field_is_named_with_value_and_bounds(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(InvalidField) as caught:
        GenerationRequest(**{"prompt": "a lake", field: value})
    message = str(caught.value)
    assert message.startswith(f"{field}: ")
    assert allowed in message
    assert field in MEDIA or repr(value)[:10] in message
    assert len(message) < 300  # a 10 MB prompt does not come back


@pytest.mark.parametrize(("frames", "chunks"), [(1, 1), (33, 1), (34, 2), (66, 2), (1452, 44)])
def test_frames_round_up_to_whole_chunks(frames: int, chunks: int) -> None:
    assert GenerationRequest(prompt="a lake", num_frames=frames).num_chunks == chunks


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([ScheduledPrompt(chunk_index=-1, prompt="a")], r"prompt_schedule\[0\].chunk_index: -1"),
        ([ScheduledPrompt(chunk_index=1, prompt=" ")], r"prompt_schedule\[0\].prompt"),
        ([ScheduledPrompt(chunk_index=1, prompt="a", interpolation_chunks=31)], "from 0 to 30"),
        ([ScheduledPrompt(chunk_index=n, prompt="a") for n in (4, 2)], "at least that of the entry before"),
        ([ScheduledPrompt(chunk_index=1, prompt="a")] * 257, "257 prompts"),
    ],
)
def test_bad_schedules(schedule: list[ScheduledPrompt], message: str) -> None:
    with pytest.raises(InvalidField, match=message):
        GenerationRequest(prompt="a lake", prompt_schedule=tuple(schedule))


def test_image_and_video_exclude_each_other() -> None:
    frames = np.zeros((33, 16, 32, 3), np.uint8)
    with pytest.raises(InvalidField, match="one of image and video"):
        GenerationRequest(prompt="a lake", height=16, width=32, image=frames[0], video=frames)


def test_dict_round_trip_leaves_the_media_out() -> None:
    request = GenerationRequest(
        prompt="a lake",
        height=16,
        width=32,
        pyramid_steps=(1, 2, 3),
        shift=2.5,
        image=np.zeros((16, 32, 3), np.uint8),
        prompt_schedule=(ScheduledPrompt(chunk_index=2, prompt="a sea", interpolation_chunks=0),),
    )
    values = json.loads(json.dumps(request.to_dict()))
    assert "image" not in values
    restored = GenerationRequest.from_dict(values)
    assert restored == request
    assert restored.image is None
    with pytest.raises(TypeError):
        GenerationRequest.from_dict(values | {"fames": 3})
