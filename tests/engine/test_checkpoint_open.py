"""JSON files with wrong values are refused: file, key, value and what is allowed, all of them at once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helios_engine.checkpoint import open_checkpoint
from helios_engine.configs import SolverConfig
from helios_engine.errors import CheckpointError
from helios_engine.loading.tiny import write_tiny

INDEX, TRANSFORMER, VAE = "model_index.json", "transformer/config.json", "vae/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
BAD: list[tuple[str, str, Any, str]] = [
    (INDEX, "scheduler", "HeliosDMDScheduler", "[library, class] with class one of HeliosDMDScheduler"),
    (INDEX, "transformer", ["diffusers", "WanTransformer3DModel"], "HeliosTransformer3DModel"),
    (INDEX, "tokenizer", None, "T5Tokenizer"),
    (INDEX, "is_distilled", "false", "true, false"),
    (TRANSFORMER, "_class_name", "WanTransformer3DModel", "HeliosTransformer3DModel"),
    (TRANSFORMER, "num_layers", -1, "an integer from 1 to 512"),
    (TRANSFORMER, "num_attention_heads", -2, "an integer from 1 to 512"),
    (TRANSFORMER, "num_layers", 10**6, "an integer from 1 to 512"),
    (TRANSFORMER, "ffn_dim", 2**63, "an integer from 1 to 262,144"),
    (TRANSFORMER, "ffn_dim", 96.0, "an integer from 1 to 262,144"),
    (TRANSFORMER, "eps", float("nan"), "a finite number above 0"),
    (TRANSFORMER, "eps", -1e-6, "a finite number above 0"),
    (TRANSFORMER, "rope_theta", 0, "a finite number above 0"),
    (TRANSFORMER, "rope_theta", 10**400, "a finite number above 0"),
    (TRANSFORMER, "rope_dim", [12, 12], "a list of 3: each an integer from 1 to 262,144"),
    (TRANSFORMER, "is_amplify_history", 1, "true or false"),
    (TRANSFORMER, "added_kv_proj_dim", "8", "an integer from 1 to 262,144, or null"),
    (TRANSFORMER, "history_scale_mode", "per_layer", "'per_head', 'scalar'"),
    (VAE, "base_dim", -8, "an integer from 1 to 262,144"),
    (VAE, "dim_mult", [1, 2, 4, -4], "a list of an integer from 1 to 512"),
    (VAE, "latents_std", [0.0] * 16, "a list of a finite number above 0"),
    (VAE, "latents_mean", [float("inf")] * 16, "a list of a finite number"),
    (VAE, "latents_mean", [0.0] * 4, "z_dim = 16"),
    (SCHEDULER, "_class_name", "HeliosScheduler", "HeliosDMDScheduler"),
    (SCHEDULER, "gamma", -1, "a finite number above 0"),
    (SCHEDULER, "num_train_timesteps", 0, "an integer from 1 to 262,144"),
    (SCHEDULER, "stages", 1, "3"),
]


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(("file", "key", "value", "allowed"), BAD, ids=lambda value: str(value)[:30])
def test_bad_value_is_named(copy: Path, file: str, key: str, value: Any, allowed: str) -> None:
    edit(copy / file, **{key: value})
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(copy)
    message = str(caught.value)
    assert message.startswith(f"{copy / file}: {key}")
    assert allowed in message
    assert len(message.splitlines()) == 1


def test_every_bad_file_is_named(copy: Path) -> None:
    edit(copy / TRANSFORMER, eps="small")
    (copy / VAE).write_text("[" * 100_000)
    (copy / SCHEDULER).unlink()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(copy)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [str(copy / file) for file in (TRANSFORMER, VAE, SCHEDULER)]


@pytest.mark.parametrize("variant", ["base", "mid"])
def test_variants_have_their_schedulers(variant: Any, tmp_path: Path) -> None:
    write_tiny(tmp_path, variant=variant)
    opened = open_checkpoint(tmp_path)
    assert (opened.variant, opened.cfg_zero_star) == (variant, variant == "mid")
    assert isinstance(opened.scheduler, SolverConfig)
    assert opened.scheduler.stages == (1 if variant == "base" else 3)
    edit(tmp_path / SCHEDULER, _class_name="UniPCMultistepScheduler")
    with pytest.raises(CheckpointError, match="UniPCMultistepScheduler"):
        open_checkpoint(tmp_path)
    edit(tmp_path / SCHEDULER, _class_name="HeliosScheduler", stages=2, stage_range=[0, 0.5, 1])
    with pytest.raises(CheckpointError, match="stages: 2; allowed: 1, 3"):
        open_checkpoint(tmp_path)
    other = (3, [0, 1 / 3, 2 / 3, 1]) if variant == "base" else (1, [0, 1])
    edit(tmp_path / SCHEDULER, stages=other[0], stage_range=other[1])
    with pytest.raises(CheckpointError, match=f"stages: {other[0]} is not allowed"):
        open_checkpoint(tmp_path)


def test_keys_of_training_code_and_of_other_schedulers_are_ignored(copy: Path) -> None:
    """diffusers keeps the keys of the scheduler that one was made from, and models those of their training."""
    expected = open_checkpoint(copy)
    edit(copy / TRANSFORMER, restrict_self_attn=False, _use_default_values=["eps"])
    edit(copy / SCHEDULER, solver_order=2, disable_corrector=[])
    edit(copy / INDEX, transformer_ode=["diffusers", "HeliosTransformer3DModel"])
    assert open_checkpoint(copy) == expected
