"""Jobs through the real service on this machine, with a tiny model: what the capacity model is compared with."""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helios.v1 import video_generation_pb2 as pb
from helios_engine.loading.tiny import TinyShape, write_tiny
from helios_engine.request import FRAMES_PER_CHUNK
from helios_services.cli.progress import stages_of
from helios_services.client import HeliosClient
from helios_services.config import ServiceConfig
from helios_services.stack import running_stack

SHAPE = TinyShape(layers=6, heads=4, head_dim=64, rope_dim=(24, 20, 20), ffn_dim=1024, vae_dim=4)
SIZE_PX = 64
START_MARGIN_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A job as the service recorded it. Times are Redis' clock; stage_s: by stage, per chunk."""

    created_s: float
    started_s: float
    ended_s: float
    ready_s: list[float]
    stage_s: list[dict[str, float]]

    @property
    def wait_s(self) -> float:
        """Seconds in the queue."""
        return self.started_s - self.created_s


@contextmanager
def running_service(*, slots: int) -> Iterator[HeliosClient]:
    """The whole service with one denoiser and one decoder."""
    with tempfile.TemporaryDirectory(prefix="helios-capacity-") as folder:
        write_tiny(Path(folder) / "checkpoint", shape=SHAPE)
        one_thread = {"torch_threads": 1}
        config = ServiceConfig.model_validate(
            {
                "state_dir": Path(folder) / "state",
                "log_level": "error",
                "model": {"checkpoint": str(Path(folder) / "checkpoint"), "dtype": "float32"},
                "gateway": {"port": 0, "metrics_port": 0},
                "dispatcher": {"metrics_port": 0, "concurrent_jobs": slots},
                "denoiser": one_thread,
                "decoder": one_thread | {"encoder_threads": 1},
                "text_encoder": one_thread,
            }
        )
        with running_stack(config) as addresses, HeliosClient(addresses.grpc) as client:
            yield client


def run_trace(client: HeliosClient, times_s: Sequence[float], chunks: Sequence[int]) -> list[Seen]:
    """Submits jobs at the given times and waits for all of them. Raises RuntimeError if one does not succeed."""
    begin, ids = time.monotonic() + START_MARGIN_S, [""] * len(times_s)

    def submit(index: int) -> None:
        time.sleep(max(begin + times_s[index] - time.monotonic(), 0.0))
        job = client.submit(
            "a red cat",
            num_frames=FRAMES_PER_CHUNK * chunks[index],
            height=SIZE_PX,
            width=SIZE_PX,
            seed=index,
        )
        ids[index] = job.id

    threads = [threading.Thread(target=submit, args=(index,)) for index in range(len(times_s))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [_seen(client, job_id) for job_id in ids]


def _seen(client: HeliosClient, job_id: str) -> Seen:
    job = list(client.watch(job_id))[-1]
    if job.state != pb.JOB_STATE_SUCCEEDED:
        raise RuntimeError(f"job {job_id} ended as {pb.JobState.Name(job.state)}")
    infos = [segment.info for segment in client.stream(job_id) if segment.info is not None]
    return Seen(
        created_s=job.create_time.ToMicroseconds() / 1e6,
        started_s=job.start_time.ToMicroseconds() / 1e6,
        ended_s=job.end_time.ToMicroseconds() / 1e6,
        ready_s=[info.ready_time.ToMicroseconds() / 1e6 for info in infos],
        stage_s=[stages_of(info) for info in infos],
    )
