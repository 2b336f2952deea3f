"""A checkpoint folder through both pipelines: prompt embeddings, latents and frames from text to pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import HeliosPyramidPipeline

from helios_engine import GenerationRequest, HeliosPipeline
from helios_engine.text.encoder import clean_prompt
from parity.reference import TOLERANCE, relative_error, working_cholesky

PROMPTS = ["a cat", "  The lake &amp;amp; the\n\tforest  ", "Ünï©ode ☕ and “quotes” â€œmojibakeâ€", "red " * 700]


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> HeliosPyramidPipeline:
    pipe = HeliosPyramidPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> HeliosPipeline:
    return HeliosPipeline.from_pretrained(checkpoint, device="cpu", dtype=torch.float32)


def test_prompt_embeddings(reference: HeliosPyramidPipeline, ours: HeliosPipeline) -> None:
    with torch.inference_mode():
        expected, _ = reference.encode_prompt(PROMPTS, do_classifier_free_guidance=False, max_sequence_length=512)
    assert relative_error(ours.text_encoder.encode(PROMPTS), expected) < TOLERANCE
    for prompt, embeds in zip(PROMPTS, expected, strict=True):
        assert relative_error(ours.text_encoder.encode([prompt])[0], embeds) < TOLERANCE


def test_uncleaned_prompts_would_differ(ours: HeliosPipeline) -> None:
    raw = ours.text_encoder.tokenizer([PROMPTS[1]]).input_ids
    assert raw != ours.text_encoder.tokenizer([clean_prompt(PROMPTS[1])]).input_ids


def test_text_to_video(reference: HeliosPyramidPipeline, ours: HeliosPipeline) -> None:
    request = GenerationRequest(
        prompt=PROMPTS[1],
        num_frames=99,
        height=64,
        width=128,
        seed=4,
        pyramid_steps=(1, 1, 1),
        amplify_first_chunk=True,
    )
    options = {
        "prompt": request.prompt,
        "height": request.height,
        "width": request.width,
        "num_frames": request.num_frames,
        "guidance_scale": 1.0,
        "pyramid_num_inference_steps_list": [1, 1, 1],
        "is_amplify_first_chunk": True,
    }
    chunks = list(ours.generate(request))
    with working_cholesky(1 / 3):
        latents, frames = (
            reference(**options, generator=torch.Generator().manual_seed(4), output_type=kind).frames
            for kind in ("latent", "np")
        )
    assert relative_error(torch.cat([chunk.latents for chunk in chunks], dim=2), latents) < TOLERANCE
    delivered = np.concatenate([chunk.frames for chunk in chunks])
    assert len(delivered) == 99
    # the reference drops the last frames of the video to reach 4k + 1
    assert np.abs(delivered[: len(frames[0])] / 255 - frames[0]).max() <= 1 / 255
    assert frames[0].std() > 0.1
