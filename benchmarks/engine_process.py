"""The in-process pipeline in a process of its own, with the cores it may use."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from helios_engine.request import GenerationRequest

Stages = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One generated video. arrival_s: seconds from the request to each chunk; stage_s: seconds by stage, per chunk."""

    arrival_s: list[float]
    stage_s: list[Stages]


class EngineProcess:
    """Generates in another process: text, DiT, VAE and H.264 in series, as a script without a service would."""

    def __init__(self, checkpoint: str, cores: set[int]) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, checkpoint, cores))
        self._process.start()

    def run(self, request: GenerationRequest) -> Run:
        """Generates one video."""
        self._pipe.send(request)
        result: Run = self._pipe.recv()
        return result

    def close(self) -> None:
        """Ends the process."""
        self._pipe.send(None)
        self._process.join()


def _serve(pipe: Connection, checkpoint: str, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    import torch

    from helios_engine import HeliosPipeline

    torch.set_num_threads(len(cores))
    pipeline = HeliosPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    while (request := pipe.recv()) is not None:
        pipe.send(_generate(pipeline, request))


def _generate(pipeline: Any, request: GenerationRequest) -> Run:
    from helios_engine.sampling.state import DenoiseState
    from helios_services.media.encoder import EncoderSettings, encode_chunk

    start, arrivals, stages = time.perf_counter(), [], []
    spent: Stages = {}

    def timed(stage: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        before = time.perf_counter()
        result = function(*args, **options)
        spent[stage] = time.perf_counter() - before
        return result

    embeds = timed("text", pipeline.text_encoder.encode, [request.prompt])
    state = DenoiseState.initial(request)
    for index in range(request.num_chunks):
        latents, state = timed("denoise", pipeline.denoiser.denoise_chunk, state, embeds)
        frames = timed("decode", pipeline.decoder.decode, latents)
        timed("encode", encode_chunk, frames, index=index, fps=request.fps, settings=EncoderSettings())
        arrivals.append(time.perf_counter() - start)
        stages.append(dict(spent))
        spent.clear()
    return Run(arrival_s=arrivals, stage_s=stages)
