"""The `helios` command as a user calls it: exit codes, messages, no tracebacks."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import pytest

HELIOS = str(Path(sys.executable).parent / "helios")


def helios(*args: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")} | (env or {})
    return subprocess.run([HELIOS, *args], capture_output=True, text=True, env=environment, timeout=120)


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
        (["gateway"], {"HELIOS_GATEWAY__PROT": "1"}, ["gateway.prot", "Extra inputs"]),
        (["gateway", "--config", "/nowhere.yaml"], {}, ["/nowhere.yaml", "No such file"]),
        (["generate", "x", "--height", "100"], {}, ["height", "100", "64 or 128"]),
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
