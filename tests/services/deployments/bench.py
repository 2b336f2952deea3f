"""A store with a job, and stages made of events: attempts at jobs without Ray."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from helios_engine.request import GenerationRequest
from helios_services.config import JobsConfig, RedisConfig, ServiceConfig
from helios_services.deployments.dispatch.job_run import JobRun
from helios_services.deployments.dispatch.stages import Conditioned, Embedded
from helios_services.deployments.dispatch.turns import Turn
from helios_services.jobs.connector import Connector
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import NOBODY, Account, Claim, JobFailure, JobSpec, Media
from helios_services.media.artifacts import ArtifactStore
from helios_services.telemetry.metrics import WorkerMetrics
from support.redis_clients import async_client
from support.stages import QuickStages

CHUNKS = 3


class Died(Exception):
    """A replica died."""


class NotThere(Exception):
    """No replica yet."""


class FakeStages(QuickStages):
    """Stages that log what is called; `before` may wait or raise, by stage and chunk."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.prompts: list[str] = []
        self.seen: list[tuple[float, int | None]] = []
        self.refusal: JobFailure | None = None
        self.gone: frozenset[str] | None = frozenset()
        self.asked = 0
        self.turns: list[Turn] = []
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}

    async def reach(self, point: str) -> None:
        self.log.append(f"{point} starts")
        if point in self.before:
            await self.before[point]()
        self.log.append(f"{point} ends")

    async def embed(self, prompt: str) -> Embedded:
        self.prompts.append(prompt)
        return await super().embed(prompt)

    async def condition(self, request: GenerationRequest, media: Media) -> Conditioned | JobFailure:
        made = await super().condition(request, media)
        if self.refusal is not None:
            return self.refusal
        assert isinstance(made, Conditioned)
        return replace(made, state=replace(made.state, anchor=torch.ones(1, 16, 1, 8, 8)))

    def denoise(
        self, previous: Any, prompt_embeds: torch.Tensor, negative_prompt_embeds: torch.Tensor | None, turn: Turn
    ) -> Any:
        self.turns.append(turn)
        self.seen.append(
            (float(prompt_embeds[0, 0]), None if negative_prompt_embeds is None else len(negative_prompt_embeds))
        )
        return super().denoise(previous, prompt_embeds, negative_prompt_embeds, turn)

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, Died)

    def unavailable(self, error: BaseException) -> bool:
        return isinstance(error, NotThere)

    async def absent(self) -> frozenset[str] | None:
        self.asked += 1
        return self.gone


class Bench:
    """A store with one submitted job, and runs of it."""

    def __init__(self, redis: RedisConfig, folder: Path) -> None:
        jobs = JobsConfig(max_attempts=3, lease_s=600, live_window_chunks=2)
        self.config = ServiceConfig(state_dir=folder, redis=redis, jobs=jobs)
        self.store = Connector(redis, self.config.jobs).store()
        self.artifacts = ArtifactStore(self.config.artifacts)
        self.metrics = WorkerMetrics()
        self.stages = FakeStages()

    def impatient(self, *, start_timeout_s: float) -> None:
        """Calls of the denoiser are given up on at once."""
        denoiser = self.config.denoiser.model_copy(
            update={"request_timeout_s": 0.05, "start_timeout_s": start_timeout_s}
        )
        self.config = self.config.model_copy(update={"denoiser": denoiser})

    async def keep_chunks(self, count: int) -> None:
        """So many of an open-ended job, instead of 2."""
        await self._reopen(live_window_chunks=count)

    async def limit_output(self, most_bytes: int) -> None:
        """Bounds what an account's jobs have made."""
        await self._reopen(max_account_output_bytes=most_bytes)

    async def _reopen(self, **jobs_options: int) -> None:
        await self.store.close()
        jobs = self.config.jobs.model_copy(update=jobs_options)
        self.config = self.config.model_copy(update={"jobs": jobs})
        self.store = Connector(self.config.redis, jobs).store()

    async def submit(
        self, *, chunks: int = CHUNKS, options: Any = None, account: Account = NOBODY, **params: Any
    ) -> str:
        job_id = uuid4().hex
        values = {
            "prompt": "a lake",
            "height": 64,
            "width": 64,
            "num_frames": 33 * CHUNKS,
            "pyramid_steps": [1, 1, 1],
            "fps": 24,
        }
        spec = JobSpec(model="m", params=values | params, chunks_total=chunks, **options or {})
        await self.store.submit(job_id, spec, account=account)
        return job_id

    async def run(self) -> JobRun:
        claim = await self.store.claim("m", "w", uuid4().hex)
        assert claim is not None
        return self.run_of(claim)

    def run_of(self, claim: Claim) -> JobRun:
        return JobRun(
            claim,
            stages=self.stages,
            store=self.store,
            artifacts=self.artifacts,
            metrics=self.metrics,
            config=self.config,
        )

    async def checkpoint(self, job_id: str) -> bytes:
        async with async_client(self.config.redis.url) as client:
            data = await client.get(Keys(self.config.redis.namespace).of("checkpoint", job_id))
        assert isinstance(data, bytes)
        return data

    async def fragments(self, job_id: str) -> list[bytes]:
        return [await self.store.fragment(job_id, index) for index in range(CHUNKS)]
