"""The in-process pipeline in a process of its own, with the cores it may use."""

import os
import time
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
    pipeline = HeliosPipeline.from_pretrained(checkpoint, device="cpu", dtype=torch.float32)
    while (request := pipe.recv()) is not None:
        pipe.send(_generate(pipeline, request))


def _generate(pipeline: Any, request: GenerationRequest) -> Run:
    from helios_engine.sampling.state import DenoiseState
    from helios_services.cli.stage_watch import StageWatch
    from helios_services.media.encoder import EncoderSettings, encode_chunk

    start, run, watch = time.perf_counter(), Run(arrival_s=[], stage_s=[]), StageWatch()
    for made in pipeline.denoise(request, DenoiseState.initial(request), timed=watch):
        with watch("decode"):
            frames = pipeline.decoder.decode(made.latents)
        with watch("encode"):
            encode_chunk(frames, index=made.index, fps=request.fps, settings=EncoderSettings())
        run.arrival_s.append(time.perf_counter() - start)
        run.stage_s.append(watch.taken())
    return run
