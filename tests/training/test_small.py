"""From nothing to a checkpoint that the engine and diffusers load, by the commands, in a few steps of each stage."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from helios_engine.checkpoint import open_checkpoint
from helios_engine.loading.check import check_checkpoint
from helios_engine.request import GenerationRequest
from helios_training.cli import register
from helios_training.errors import TrainingError
from helios_training.small.parts import FrozenText, load_transformer
from helios_training.small.text import SmallText
from helios_training.small.vocabulary import make_tokenizer
from helios_training.world import all_scenes

pytestmark = pytest.mark.slow
app = typer.Typer()
register(app)


def helios(*words: object) -> str:
    """Runs a command in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module", autouse=True)
def short_paths() -> Iterator[None]:
    """The teacher takes few steps, and few clips are counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helios_training.export.STATISTICS_CLIPS", 2)
        patch.setattr("helios_training.stages.path_files.SECTIONS", 1)
        patch.setattr("helios_training.stages.path_files.TEACHER_STEPS", (2, 1, 2))
        yield


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that `make mini` makes, one step of each."""
    root = tmp_path_factory.mktemp("mini")
    output = helios("train", "mini", "--root", root, "--scale", "0.0001")
    assert output.splitlines()[-1] == str(root / "distilled")
    return root


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
def test_each_stage_writes_a_sound_checkpoint_of_its_variant(mini: Path, variant: str) -> None:
    assert check_checkpoint(mini / variant).variant == variant
    assert open_checkpoint(mini / variant).vae.latents_std != (1.0,) * 16


def test_the_engine_makes_a_video_of_it(mini: Path) -> None:
    from helios_engine.pipeline import HeliosPipeline

    pipeline = HeliosPipeline.from_pretrained(mini / "distilled", device="cpu", dtype=torch.float32)
    request = GenerationRequest(
        prompt=all_scenes()[5].caption, num_frames=33, height=64, width=128, pyramid_steps=(1, 1, 1)
    )
    (chunk,) = pipeline.generate(request)
    assert chunk.frames.shape == (33, 64, 128, 3)
    assert torch.isfinite(chunk.latents).all()


def test_diffusers_loads_the_parts_and_the_transformer_agrees(mini: Path) -> None:
    from diffusers import AutoencoderKLWan, HeliosTransformer3DModel

    theirs = HeliosTransformer3DModel.from_pretrained(mini / "base", subfolder="transformer", torch_dtype=torch.float32)
    ours = load_transformer(mini / "base", "base", "a test")
    assert set(theirs.state_dict()) == set(ours.state_dict())
    vae = AutoencoderKLWan.from_pretrained(mini / "base", subfolder="vae", torch_dtype=torch.float32)
    latents = torch.randn(1, 16, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    from helios_engine.loading.vae import load_decoder

    mean, std = (
        torch.tensor(values).view(1, 16, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    with torch.no_grad():
        decoded = load_decoder(mini / "base").model(latents)
        torch.testing.assert_close(decoded.clamp(-1, 1), vae.decode(latents * std + mean).sample, atol=1e-4, rtol=1e-3)


def test_the_text_encoder_is_served_as_it_was_trained(mini: Path) -> None:
    from helios_training.export import weights_of

    trained = SmallText()
    stored = {
        name: value.half().float()
        for name, value in weights_of(mini / "runs" / "base" / "run.safetensors", "base", "text.").items()
    }
    trained.load_state_dict(stored, strict=False)
    prompts = [all_scenes()[0].caption, "", all_scenes()[-1].caption]
    with torch.no_grad():
        torch.testing.assert_close(FrozenText(mini / "base")(prompts), trained(prompts), atol=1e-5, rtol=1e-4)


def test_every_caption_has_as_many_tokens_as_words() -> None:
    tokenizer = make_tokenizer()
    for scene in all_scenes()[::97]:
        ids = tokenizer(scene.caption).input_ids
        assert len(ids) == len(scene.caption.split()) + 1
        assert tokenizer.unk_token_id not in ids
    assert len(tokenizer("zebra").input_ids) > 3  # by letters


def test_a_run_goes_on_and_a_wrong_start_is_named(mini: Path) -> None:
    latents = ("--latents", mini / "latents")
    output = helios(
        "train",
        "mid",
        "--run",
        mini / "runs" / "mid",
        "--out",
        mini / "mid",
        "--base",
        mini / "base",
        *latents,
        "--steps",
        3,
    )
    assert "3 of 3 steps done" in output
    with pytest.raises(
        TrainingError, match="variant: 'mid' is not allowed; allowed: 'base', from which stage 2 starts"
    ):
        helios("train", "mid", "--run", mini / "x", "--out", mini / "y", "--base", mini / "mid", *latents)
    with pytest.raises(TrainingError, match="stage: 'base' is not allowed; allowed: 'mid'"):
        helios("train", "mid", "--run", mini / "runs" / "base", "--out", mini / "y", "--base", mini / "base", *latents)


def test_what_is_made_is_not_made_again(mini: Path) -> None:
    output = helios("train", "mini", "--root", mini, "--scale", "0.0001")
    assert "0 clips encoded" in output
    assert "0 of the teacher's videos made" in output
    assert "base: 2 of 2 steps" in output


def test_the_ode_start_is_a_mid_again(mini: Path) -> None:
    assert check_checkpoint(mini / "start").variant == "mid"
    teachers = ("--base", mini / "base", "--mid", mini / "mid", "--paths", mini / "latents" / "none")
    with pytest.raises(TrainingError, match="holds no paths"):
        helios("train", "distill", "--run", mini / "r4", "--out", mini / "x", *teachers)


def test_a_vae_exported_again_keeps_its_statistics(mini: Path) -> None:
    before = json.loads((mini / "vae" / "vae" / "config.json").read_text())
    start = mini / "runs" / "vae-frames" / "run.safetensors"
    helios(
        "train",
        "vae",
        "--run",
        mini / "v2",
        "--out",
        mini / "vae",
        "--phase",
        "decoder",
        "--start",
        start,
        "--steps",
        1,
    )
    assert json.loads((mini / "vae" / "vae" / "config.json").read_text()) == before
