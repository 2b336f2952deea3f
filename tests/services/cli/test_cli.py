"""The `helios` command as a user calls it: exit codes, messages, no tracebacks."""

import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.processes import HELIOS


def helios(*args: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")} | (env or {})
    return subprocess.run([HELIOS, *args], capture_output=True, text=True, env=environment, timeout=300)


def test_tiny_then_check(tmp_path: Path) -> None:
    made = helios("tiny", str(tmp_path / "tiny"), "--variant", "mid")
    assert (made.returncode, made.stderr) == (0, "")
    checked = helios("check", str(tmp_path / "tiny"))
    assert checked.returncode == 0
    for name in ("mid checkpoint, sound", "transformer", "vae", "text_encoder"):
        assert name in checked.stdout
    again = helios("tiny", str(tmp_path / "tiny"))
    assert again.returncode == 1
    assert "not an empty folder" in again.stderr


@pytest.mark.parametrize("command", ["check", "up", "worker"])
def test_a_wrong_checkpoint_is_explained_without_a_traceback(command: str, checkpoint: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(checkpoint, tmp_path / "broken"))
    shard = broken / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:1000])
    place = [str(broken)] if command == "check" else ["--checkpoint", str(broken)]
    ended = helios(command, *place, env={"HELIOS_STATE_DIR": str(tmp_path)})
    assert ended.returncode == 1
    assert shard.name in ended.stderr
    assert "truncated" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("args", "env", "named"),
    [
        (["worker"], {}, ["model.checkpoint", "helios tiny"]),
        (["gateway"], {"HELIOS_GATEWAY__PORT": "99999"}, ["gateway.port", "99999", "65535"]),
        (["gateway"], {"HELIOS_GATEWAY__PROT": "1"}, ["gateway.prot", "did you mean gateway.port?"]),
        (["gateway", "--config", "/nowhere.yaml"], {}, ["/nowhere.yaml", "No such file"]),
        (["generate", "x", "--prompt-at", "soon:rain"], {}, ["prompt-at", "soon:rain", "CHUNK:TEXT"]),
        (["generate", "x", "--lora", "style:much"], {}, ["lora", "style:much", "NAME:SCALE"]),
        (["generate", "x", "--steps", "a,b"], {}, ["steps", "a,b", "3 integers"]),
        (["generate", "x"], {}, ["checkpoint", "HELIOS_MODEL__CHECKPOINT"]),
        (["generate", "x", "-o", "/nowhere/x.mp4"], {}, ["output", "/nowhere"]),
        (["jobs", "ls", "--server", "127.0.0.1:1"], {}, ["UNAVAILABLE"]),
    ],
    ids=str,
)
def test_bad_calls_say_why(args: list[str], env: dict[str, str], named: list[str], tmp_path: Path) -> None:
    ended = helios(*args, env={"HELIOS_STATE_DIR": str(tmp_path)} | env)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    for part in named:
        assert part in ended.stderr


def test_generate_in_process_writes_a_playable_file(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    size = ["--frames", "40", "--height", "64", "--width", "128", "--steps", "1,1,1", "--fps", "12"]
    env = {"HELIOS_MODEL__DTYPE": "float32"}
    ended = helios("generate", "a cat", "-o", str(output), "--checkpoint", str(checkpoint), *size, env=env)
    assert ended.returncode == 0, ended.stderr
    assert "time to first chunk" in ended.stdout
    assert "decode" in ended.stdout
    with av.open(str(output)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        assert (container.streams.video[0].width, container.streams.video[0].height) == (128, 64)
    assert len(times) == 66
    assert [round(float(b - a), 6) for a, b in pairwise(times)] == [round(1 / 12, 6)] * 65


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A photograph of noise, of a size that no model makes."""
    pixels = np.random.default_rng(1).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def generate(checkpoint: Path, output: Path, *options: str) -> NDArray[np.uint8]:
    """Runs `helios generate` and returns the file's frames."""
    size = ["--height", "64", "--width", "64"]
    env = {"HELIOS_MODEL__DTYPE": "float32"}
    ended = helios("generate", "a cat", "-o", str(output), "--checkpoint", str(checkpoint), *size, *options, env=env)
    assert ended.returncode == 0, ended.stderr
    with av.open(str(output)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_generate_from_an_image_a_clip_and_a_state(checkpoint: Path, still: Path, tmp_path: Path) -> None:
    steps = ("--steps", "1,1,1")
    state = tmp_path / "state"
    plain = generate(checkpoint, tmp_path / "plain.mp4", *steps, "--frames", "66")
    animated = generate(checkpoint, tmp_path / "clip.mp4", *steps, "--frames", "33", "--image", str(still))
    extended = generate(
        checkpoint, tmp_path / "v2v.mp4", *steps, "--frames", "33", "--video", str(tmp_path / "clip.mp4")
    )
    first = generate(checkpoint, tmp_path / "first.mp4", *steps, "--frames", "33", "--save-state", str(state))
    rest = generate(checkpoint, tmp_path / "rest.mp4", *steps, "--frames", "33", "--continue-from", str(state))
    assert [len(video) for video in (plain, animated, extended, first, rest)] == [66, 33, 33, 33, 33]
    assert np.array_equal(np.concatenate([first, rest]), plain)  # as if it had been one longer video
    different = [np.abs(video.astype(int) - first.astype(int)).mean() for video in (animated, extended)]
    assert min(different) > 2


def test_prompts_that_take_over(checkpoint: Path, tmp_path: Path) -> None:
    options = ("--steps", "1,1,1", "--frames", "66", "--interpolate", "0")
    plain = generate(checkpoint, tmp_path / "plain.mp4", *options)
    changed = generate(checkpoint, tmp_path / "changed.mp4", *options, "--prompt-at", "1:red snow in the city")
    assert np.array_equal(plain[:33], changed[:33])
    assert not np.array_equal(plain[33:], changed[33:])


@pytest.mark.parametrize(
    ("variant", "options"), [("base", ("--inference-steps", "2")), ("mid", ("--steps", "3,1,1", "--no-zero-init"))]
)
def test_generate_with_every_variant(variant: str, options: tuple[str, ...], tmp_path: Path) -> None:
    assert helios("tiny", str(tmp_path / variant), "--variant", variant).returncode == 0
    guided = ("--negative-prompt", "blur", "--guidance-scale", "3", "--frames", "33")
    assert len(generate(tmp_path / variant, tmp_path / "out.mp4", *options, *guided)) == 33


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--height", "100"], ["height", "100", "64 or 128"]),
        (["--inference-steps", "4"], ["num_inference_steps", "pyramid models take pyramid_steps"]),
        (["--image", "/nowhere.png"], ["/nowhere.png", "No such file"]),
        (["--image", "README.md"], ["content type", "text/markdown"]),
        (["--continue-from", "README.md"], ["README.md", "--save-state"]),
        (["--lora", "/nowhere.safetensors:0.5"], ["/nowhere.safetensors"]),
    ],
    ids=str,
)
def test_bad_inputs_say_why(checkpoint: Path, options: list[str], named: list[str], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no picture")
    paths = [str(tmp_path / option) if option == "README.md" else option for option in options]
    output = ["-o", str(tmp_path / "out.mp4"), "--checkpoint", str(checkpoint), "--frames", "33"]
    ended = helios("generate", "x", *output, *paths, env={"HELIOS_MODEL__DTYPE": "float32"})
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    for part in named:
        assert part in ended.stderr
