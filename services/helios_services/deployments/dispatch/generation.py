"""Makes a job's missing chunks: prompts, denoising, and when to stop, to park or to give way."""

import contextlib
import time
from typing import Any

from helios_engine.request import GenerationRequest
from helios_engine.sampling.state import DenoiseState
from helios_services.deployments.dispatch.attempt import Attempt
from helios_services.deployments.dispatch.delivery import Delivery
from helios_services.deployments.dispatch.endings import JobFailed, NothingWanted, Released, SetAside
from helios_services.deployments.dispatch.prompt_book import PromptBook, prompt_key
from helios_services.deployments.dispatch.resumption import saved_state
from helios_services.deployments.dispatch.stages import Call, Denoised
from helios_services.deployments.dispatch.turns import Turn
from helios_services.jobs.errors import MediaNotFound
from helios_services.jobs.records import ASIDE, JobFailure, Priority, Verdict
from helios_services.telemetry import tracing

RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Generation:
    """The chunks of one attempt. Chunk k is delivered while chunk k+1 is denoised."""

    def __init__(self, attempt: Attempt, request: GenerationRequest, delivery: Delivery) -> None:
        self._attempt, self._request, self._delivery = attempt, request, delivery
        self._job, self._lease, self._store, self._stages = attempt.job, attempt.lease, attempt.store, attempt.stages
        self._prompts = PromptBook(attempt.job, request.prompt_schedule, attempt.claim.prompt_embeds)
        self._expires_s: float | None = None
        self._stage_s = {"queue": attempt.claim.queue_wait_s}
        """Seconds by stage, spent on the chunk to come before it is denoised."""

    async def run(self) -> int | None:
        """Makes the missing chunks. Returns how many the video has, or None if it ended before the last.

        Raises JobFailed, Released, SetAside, NothingWanted, Expired and LeaseLost.
        """
        try:
            chunks = await self._make()
            await self._delivery.settled()
            return chunks
        except Released:
            await self._delivery.settled()  # the chunk before the one that could not be made is the client's
            raise
        except JobFailed:
            with contextlib.suppress(Released):  # the failure is final, whatever becomes of the chunk before
                await self._delivery.settled()
            raise
        finally:
            await self._delivery.cancel()

    async def _make(self) -> int | None:
        made = self._job.chunks_done
        if self._complete(made):
            return made
        previous: Call | None = None
        state: DenoiseState | None = None
        while not self._attempt.stopping:
            verdict = await self._begin(made)
            if verdict in ASIDE:
                await self._delivery.settled()
                await self._set_aside(verdict)
                continue
            if verdict is Verdict.STOPPED:
                if made == 0:
                    raise NothingWanted
                return made
            if state is None:  # only now: what it takes is charged with the chunk that has just started
                state = await self._first_state()
            chunk = tracing.start("chunk", chunk=made)
            with tracing.entered(chunk), tracing.ended_on_error(chunk):
                call, denoised = await self._denoise(previous, state, *await self._embeds(made))
                await self._delivery.settled()
                stage_s, self._stage_s = self._stage_s, {}
                self._delivery.start(chunk, made, self._request, call, denoised, stage_s)
            previous, state, made = call, denoised.state, made + 1
            if self._complete(made):
                return made
        return None

    def _complete(self, made: int) -> bool:
        return made == self._job.chunks_total > 0

    async def _begin(self, index: int) -> Verdict:
        start = await self._attempt.durably(lambda: self._store.begin_chunk(self._lease, index, self._prompts.updates))
        self._prompts.add(start.prompt_updates)
        self._expires_s = None if start.left_s is None else time.monotonic() + start.left_s
        return start.verdict

    async def _set_aside(self, verdict: Verdict) -> None:
        """Gives way, or parks the job, and raises SetAside; returns if that has become needless meanwhile."""
        leave = self._store.give_way if verdict is Verdict.OUTRANKED else self._store.park
        if await self._attempt.durably(lambda: leave(self._lease)):
            self._attempt.metrics.set_aside.labels(verdict.value).inc()
            raise SetAside

    async def _first_state(self) -> DenoiseState:
        saved = saved_state(self._attempt.claim, self._request)
        if saved is not None:
            return saved
        if self._job.spec.media_ids:
            return await self._conditioned_state(self._job.spec.media_ids[0])
        return DenoiseState.initial(self._request)

    async def _conditioned_state(self, media_id: str) -> DenoiseState:
        try:
            media = await self._attempt.durably(lambda: self._store.media(media_id))
        except MediaNotFound as error:
            raise JobFailed("MEDIA_GONE", str(error)) from None
        conditioned = await self._attempt.calls.call("condition", lambda: self._stages.condition(self._request, media))
        if isinstance(conditioned, JobFailure):
            raise JobFailed(conditioned.reason, conditioned.message)
        self._stage_s["condition"] = conditioned.seconds
        return conditioned.state

    async def _embeds(self, index: int) -> tuple[Any, Any]:
        """Embeddings of the chunk's prompt and, with guidance, of the negative one."""
        negative = self._request.negative_prompt if self._request.guided else None
        embeds = await self._prompts.of_chunk(index, self._embed, self._save_embeds, negative)
        if negative is None:
            return embeds, None
        keep = {prompt_key(negative), *self._prompts.keys}
        return embeds, await self._prompts.of_prompt(negative, self._embed, self._save_embeds, keep)

    async def _embed(self, prompt: str) -> Any:
        embedded = await self._attempt.calls.call("text", lambda: self._stages.embed(prompt))
        self._stage_s["text"] = self._stage_s.get("text", 0.0) + embedded.seconds
        return embedded.prompt_embeds

    async def _save_embeds(self, key: str, data: bytes, keep: set[str]) -> None:
        await self._attempt.durably(lambda: self._store.save_prompt_embeds(self._lease, key, data, keep=keep))

    async def _denoise(
        self, previous: Call | None, state: DenoiseState, embeds: Any, negative: Any
    ) -> tuple[Call, Denoised]:
        """The call that made the chunk, and what it gave.

        The state travels by reference at first. A repeated call carries it: the reference may be what was lost.
        """
        call: Call | None = None

        async def once() -> Denoised:
            nonlocal call
            source = state if call is not None or previous is None else previous
            call = self._stages.denoise(source, embeds, negative, self._turn())
            denoised: Denoised = await call
            return denoised

        denoised = await self._attempt.calls.call("denoise", once)
        assert call is not None
        return call, denoised

    def _turn(self) -> Turn:
        left_s = None if self._expires_s is None else max(self._expires_s - time.monotonic(), 0.0)
        return Turn(rank=RANKS[self._job.spec.priority], left_s=left_s)
