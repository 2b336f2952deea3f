"""A denoiser replica of two ranks in a real Ray Serve, over gloo: same chunk, same bits, nothing left behind."""

import contextlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from ray import serve
from ray.util.placement_group import placement_group_table

from helios_engine.errors import InvalidField
from helios_engine.loading.denoiser import load_denoiser
from helios_engine.request import GenerationRequest, LoraWeight
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.text.embeds import pad
from helios_services.config import DenoiserConfig, ModelConfig, ParallelConfig, ServiceConfig
from helios_services.deployments.app import deployment_options
from helios_services.deployments.dispatch.stages import Denoised
from helios_services.deployments.failure import why_not_running
from helios_services.deployments.ranks.replica import RankedDenoiserReplica
from support.local_ray import local_serve
from support.waiting import wait_until

pytestmark = [
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable"),  # read in place from the object store
]
REQUEST = GenerationRequest(prompt="a lake", height=64, width=64, seed=3, pyramid_steps=(1, 2, 1))
CHUNKS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Room for one group of two ranks beside Serve's own actors, which need none: a leaked group would show."""
    with local_serve(num_cpus=2):
        yield


def deploy(checkpoint: Path, parallel: ParallelConfig) -> Any:
    """Deploys the denoiser alone; its handle."""
    options = DenoiserConfig(parallel=parallel, torch_threads=1, health_check_period_s=1.0)
    config = ServiceConfig(model=ModelConfig(checkpoint=str(checkpoint), dtype="float32"), denoiser=options)
    deployment = serve.deployment(RankedDenoiserReplica, name="denoiser", **deployment_options(options))
    return serve.run(deployment.bind(config), name="ranks", route_prefix=None)


@contextmanager
def deployed(checkpoint: Path, parallel: ParallelConfig) -> Iterator[Any]:
    """`deploy`, and its end."""
    try:
        yield deploy(checkpoint, parallel)
    finally:
        serve.delete("ranks")


@pytest.fixture(scope="module")
def denoiser(checkpoint: Path) -> Denoiser:
    """The same on one device, in this process."""
    return load_denoiser(checkpoint, dtype=torch.float32)


@dataclass(frozen=True)
class Prompts:
    """A request and its embeddings, without padding."""

    request: GenerationRequest
    tokens: tuple[torch.Tensor, ...]

    @classmethod
    def random(cls, request: GenerationRequest) -> "Prompts":
        """The prompt's and, with guidance, the negative one's."""
        generator = torch.Generator().manual_seed(8)
        return cls(
            request, tuple(torch.randn(n, 32, generator=generator) for n in ((5, 3) if request.guided else (5,)))
        )

    def made_by(self, handle: Any) -> list[Denoised]:
        """The chunks that the replica makes."""
        state, chunks = DenoiseState.initial(self.request), []
        for _ in range(CHUNKS):
            chunk: Denoised = handle.denoise_chunk.remote(state, *self.tokens).result(timeout_s=120)
            state = chunk.state
            chunks.append(chunk)
        return chunks

    def made_by_one(self, denoiser: Denoiser) -> list[Denoised]:
        """The chunks that one device makes."""
        state, chunks = DenoiseState.initial(self.request), []
        for _ in range(CHUNKS):
            latents, state = denoiser.denoise_chunk(state, *map(pad, self.tokens))
            chunks.append(Denoised(latents=latents, state=state, seconds=0.0, memory_bytes=0))
        return chunks


def processes() -> dict[str, psutil.Process]:
    """The ranks' processes; keys: "leader" and "follower"."""
    titles = {"ray::ServeReplica:ranks:denoiser": "leader", "ray::Follower": "follower"}
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            line = " ".join(process.cmdline())
            for title, name in titles.items():
                if line.startswith(title):
                    assert name not in found, f"two processes are {title}"
                    found[name] = process
    return found


def check_equal(ours: list[Denoised], theirs: list[Denoised]) -> None:
    """Bit for bit."""
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.latents, other.latents)
        assert one.state.to_bytes() == other.state.to_bytes()


def check_close(ours: list[Denoised], theirs: list[Denoised]) -> None:
    """Within the rounding of float32."""
    for one, other in zip(ours, theirs, strict=True):
        error = (one.latents - other.latents).norm() / other.latents.norm()
        assert error < 1e-5
        assert torch.equal(one.state.rng_state, other.state.rng_state)


def test_two_ranks(cluster: None, checkpoint: Path, denoiser: Denoiser) -> None:
    prompts = Prompts.random(REQUEST)
    with deployed(checkpoint, ParallelConfig(ulysses_degree=2)) as handle:
        first = prompts.made_by(handle)
        check_close(first, prompts.made_by_one(denoiser))
        group = processes()
        assert set(group) == {"leader", "follower"}
        (placed,) = [entry for entry in placement_group_table().values() if entry["state"] == "CREATED"]
        assert placed["strategy"] == "STRICT_PACK"
        assert placed["bundles"] == {0: {"CPU": 1.0}, 1: {"CPU": 1.0}}

        wrong = DenoiseState.initial(replace(REQUEST, loras=(LoraWeight(name="none", scale=1.0),)))
        with pytest.raises(InvalidField, match=r"loras\[0\]\.name"):  # the request's fault: the group lives on
            handle.denoise_chunk.remote(wrong, *prompts.tokens).result(timeout_s=120)
        check_equal(prompts.made_by(handle), first)
        assert processes() == group

        for rank in ("follower", "leader"):  # idle ones: nobody waits for an exchange
            lost = processes()
            lost[rank].send_signal(signal.SIGKILL)
            _, alive = psutil.wait_procs(lost.values(), timeout=60)
            assert not alive
            check_equal(made_at_last(handle, prompts), first)
        group = processes()
    _, alive = psutil.wait_procs(group.values(), timeout=60)
    assert not alive
    wait_until(lambda: all(entry["state"] == "REMOVED" for entry in placement_group_table().values()))


def made_at_last(handle: Any, prompts: Prompts) -> list[Denoised]:
    """The chunks after a loss, as the dispatcher gets them: it repeats lost calls."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return prompts.made_by(handle)
        except ray.exceptions.RayActorError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize("parallel", [ParallelConfig(cfg_degree=2), ParallelConfig(ring_degree=2)], ids=["cfg", "ring"])
def test_other_meshes(cluster: None, checkpoint: Path, denoiser: Denoiser, parallel: ParallelConfig) -> None:
    guided = Prompts.random(replace(REQUEST, guidance_scale=3.0))
    alone = guided.made_by_one(denoiser)
    with deployed(checkpoint, parallel) as handle:
        check_close(guided.made_by(handle), alone)


def test_a_group_that_cannot_start_says_why_and_is_gone(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="failed"):
        deploy(tmp_path / "missing", ParallelConfig(ulysses_degree=2))
    told = why_not_running("ranks")
    assert told.startswith("denoiser: did not start: ")
    assert "missing: is not a folder" in told
    serve.delete("ranks")
    wait_until(lambda: not processes())
    wait_until(lambda: all(entry["state"] == "REMOVED" for entry in placement_group_table().values()))
