"""What `make demo` runs, as a user runs it."""

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import psutil

from support.waiting import wait_until


def alive(process: psutil.Process) -> bool:
    """Whether it runs; one that nobody has waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_demo_writes_a_playable_video_prints_its_figures_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}
    demo = subprocess.Popen(
        [sys.executable, "-m", "helios_services.demo"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started: set[psutil.Process] = set()
    with ThreadPoolExecutor() as pool:
        output = pool.submit(demo.communicate, timeout=440)
        while not output.done():
            with contextlib.suppress(psutil.NoSuchProcess):
                started |= set(psutil.Process(demo.pid).children(recursive=True))
            time.sleep(0.2)
    printed, _ = output.result()
    assert demo.returncode == 0, printed[-3000:]
    for figure in ("time to first chunk", "FPS", "real-time factor", "denoise", "decode", "encode", "2/2"):
        assert figure in printed
    with av.open(str(tmp_path / "demo.mp4")) as container:
        frames = list(container.decode(video=0))
        assert (container.streams.video[0].width, container.streams.video[0].height) == (192, 128)
    times = [frame.pts for frame in frames]
    assert len(times) == 66
    assert times == sorted(set(times))
    pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert pictures.std() > 20  # a picture, not one colour
    assert len(started) > 5
    wait_until(lambda: not any(map(alive, started)))  # what Ray's node leaves ends by itself
