"""The stages as Ray Serve deployments."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import structlog
import torch
from ray import serve
from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OwnerDiedError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ReplicaState, ServeStatus

from helios_engine.request import GenerationRequest
from helios_engine.sampling.state import DenoiseState
from helios_services.deployments.dispatch.stages import Busy, Call, Conditioned, Denoised, Embedded, Encoded
from helios_services.deployments.dispatch.turns import Turn
from helios_services.jobs.records import JobFailure, Media

log = structlog.get_logger(__name__)
UNAVAILABLE = (ActorUnavailableError, BackPressureError, Busy, DeploymentUnavailableError)
STATUS_TIMEOUT_S = 30.0
SERVING = {ReplicaState.RUNNING, ReplicaState.PENDING_MIGRATION}
"""Where Serve sends calls to; the second is on a node that is drained, until its replacement runs."""
LOST = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, OwnerDiedError)


class RayStages:
    """Calls through deployment handles. A response handed on travels by reference through the object store."""

    def __init__(self, app: str, text: DeploymentHandle, denoiser: DeploymentHandle, decoder: DeploymentHandle) -> None:
        self._app, self._text, self._denoiser, self._decoder = app, text, denoiser, decoder
        self._asking: asyncio.Task[ServeStatus] | None = None
        self._deployments = {"text": text, "condition": decoder, "denoise": denoiser, "decode": decoder}

    def embed(self, prompt: str) -> Awaitable[Embedded]:
        """See Stages."""
        return cast(Awaitable[Embedded], self._text.embed.remote(prompt))

    def condition(self, request: GenerationRequest, media: Media) -> Awaitable[Conditioned | JobFailure]:
        """See Stages."""
        return cast(Awaitable[Conditioned | JobFailure], self._decoder.condition.remote(request, media))

    def denoise(
        self,
        previous: Call | DenoiseState,
        prompt_embeds: torch.Tensor,
        negative_prompt_embeds: torch.Tensor | None,
        turn: Turn,
    ) -> Call:
        """See Stages."""
        return cast(Call, self._denoiser.denoise_chunk.remote(previous, prompt_embeds, negative_prompt_embeds, turn))

    def decode(self, denoised: Call | Denoised, request: GenerationRequest) -> Awaitable[Encoded]:
        """See Stages."""
        return cast(Awaitable[Encoded], self._decoder.decode_chunk.remote(denoised, request))

    def unavailable(self, error: BaseException) -> bool:
        """See Stages."""
        return isinstance(_cause(error), UNAVAILABLE)

    def lost(self, error: BaseException) -> bool:
        """See Stages. A RayTaskError is the stage's own exception, unless it reports a lost argument."""
        return isinstance(_cause(error), LOST) and not self.unavailable(error)

    async def absent(self) -> frozenset[str] | None:
        """See Stages. The controller is asked."""
        if self._asking is None or self._asking.done():  # one thread at most waits for a controller that is away
            self._asking = asyncio.create_task(asyncio.to_thread(serve.status))
        try:
            status = await asyncio.wait_for(asyncio.shield(self._asking), STATUS_TIMEOUT_S)
            deployments = status.applications[self._app].deployments
            return frozenset(
                stage
                for stage, handle in self._deployments.items()
                if SERVING.isdisjoint(deployments[handle.deployment_name].replica_states)
            )
        except Exception as error:  # of Ray, of Serve, of what they talk through: jobs that run must not end by this
            log.debug("stages_not_seen", error=type(error).__name__)
            return None


def _cause(error: BaseException) -> BaseException:
    return error.cause if isinstance(error, RayTaskError) else error
