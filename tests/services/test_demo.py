"""What `make demo` runs, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import psutil
import pytest


@pytest.mark.timeout(240)
def test_demo_writes_a_playable_video_prints_its_figures_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}
    before = set(psutil.pids())
    ended = subprocess.run(
        [sys.executable, "-m", "helios_services.demo"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    for figure in ("time to first chunk", "FPS", "real-time factor", "denoise", "decode", "encode", "2/2"):
        assert figure in ended.stdout + ended.stderr
    with av.open(str(tmp_path / "demo.mp4")) as container:
        frames = list(container.decode(video=0))
        assert (container.streams.video[0].width, container.streams.video[0].height) == (192, 128)
    times = [frame.pts for frame in frames]
    assert len(times) == 66
    assert times == sorted(set(times))
    pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert pictures.std() > 20  # a picture, not one colour
    left = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in before]
    commands = [" ".join(process.info["cmdline"] or ()) for process in left]
    words = ("ray::", "raylet", "gcs_server", "redis-server", "helios_services")
    assert [command for command in commands if any(word in command for word in words)] == []
