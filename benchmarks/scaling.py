"""How the cost of a chunk grows: over the video, with the resolution, over ranks: `python -m benchmarks.scaling`.

Over the video it has to stay flat: state and history have a fixed size. One thread a process, CPU time of that thread;
with ranks wall time, as they wait for each other (gloo, all on this machine's cores).
"""

import argparse
import json
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from benchmarks.conditions import head
from benchmarks.counts import dit
from benchmarks.peers import random_weights
from benchmarks.sizes import SIZES, Size
from helios_engine.model.transformer import HeliosTransformer, parameter_dtype
from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.tokens import history_tokens, noisy_tokens

RESULT = Path(__file__).parent / "results" / "scaling-cpu.json"
RESOLUTIONS = ((64, 128), (128, 128), (128, 256), (256, 256))


def main() -> None:
    """Measures all three, prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=[name for name, size in SIZES.items() if size.device == "cpu"], default="cpu")
    parser.add_argument("--chunks", type=int, default=24, help="length of the video")
    parser.add_argument("--runs", type=int, default=3, help="counted runs per resolution and number of ranks")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[args.size]
    denoiser = Denoiser(model_of(size), size.scheduler)
    report = {
        **head("scaling"),
        "size": size.name,
        "video": over_video(denoiser, size, args.chunks),
        "resolution": [over_resolution(denoiser, size, *shape, args.runs) for shape in RESOLUTIONS],
        "ranks": [over_ranks(size, count, args.runs) for count in args.ranks],
    }
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    show(report)
    print(f"written to {args.output}")


def model_of(size: Size) -> HeliosTransformer:
    """The size's DiT with random weights; the same on every rank."""
    with torch.device("meta"):
        model = HeliosTransformer(size.transformer)
    weights = random_weights(model, torch.device(size.device), lambda name: parameter_dtype(name, size.dtype))
    model.load_state_dict(weights, assign=True)
    return model


def request_for(height: int, width: int, chunks: int) -> GenerationRequest:
    """A video of this many chunks, [1,1,1]."""
    frames = chunks * FRAMES_PER_CHUNK
    options: dict[str, Any] = {"pyramid_steps": (1, 1, 1), "amplify_first_chunk": False, "seed": 1}
    return GenerationRequest(prompt="given as embedding", num_frames=frames, height=height, width=width, **options)


def over_video(denoiser: Denoiser, size: Size, chunks: int) -> dict[str, Any]:
    """Seconds of each chunk of one video, and of its last quarter over its first. The first chunk is a warm-up."""
    seconds = chunk_times(denoiser, size, request_for(size.height, size.width, chunks + 1), time.thread_time)[1:]
    quarter = max(1, chunks // 4)
    return {
        "chunk_s": seconds,
        "median_s": median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "last_over_first_quarter": median(seconds[-quarter:]) / median(seconds[:quarter]),
    }


def over_resolution(denoiser: Denoiser, size: Size, height: int, width: int, runs: int) -> dict[str, Any]:
    """Seconds of a chunk at this size of picture, beside its operations."""
    seconds = chunk_times(denoiser, size, request_for(height, width, runs + 1), time.thread_time)[1:]
    history = history_tokens(height, width)
    stages = (dit(size.transformer, history, noisy_tokens(height, width, scale)) for scale in (4, 2, 1))
    flops = sum(product.flops for stage in stages for product in stage)
    measured = {"median_s": median(seconds), "min_s": min(seconds), "max_s": max(seconds)}
    return {"height": height, "width": width, "flops": flops, **measured}


def over_ranks(size: Size, ranks: int, runs: int) -> dict[str, Any]:
    """Wall seconds of a chunk with its tokens over this many processes (Ulysses), one thread each."""
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
        result = Path(folder) / "seconds.json"
        rendezvous = f"file://{folder}/rendezvous"
        context = get_context("spawn")
        arguments = (ranks, rendezvous, size.name, runs, str(result))
        processes = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds = json.loads(result.read_text())
    return {"ranks": ranks, "median_s": median(seconds), "min_s": min(seconds), "max_s": max(seconds)}


def chunk_times(denoiser: Denoiser, size: Size, request: GenerationRequest, clock: Any) -> list[float]:
    """Seconds of each chunk of the request."""
    embeds = torch.randn(1, 512, size.transformer.text_dim, generator=torch.Generator().manual_seed(2))
    embeds[:, 20:] = 0  # a prompt of 20 tokens
    state, seconds = DenoiseState.initial(request), []
    for _ in range(request.num_chunks):
        before = clock()
        _, state = denoiser.denoise_chunk(state, embeds)
        seconds.append(clock() - before)
    return seconds


def _rank(rank: int, ranks: int, rendezvous: str, name: str, runs: int, result: str) -> None:
    size = SIZES[name]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=ranks)
    transformer = ParallelTransformer(model_of(size), Mesh.build(ContextParallel(ulysses_degree=ranks)))
    denoiser = Denoiser(transformer, size.scheduler)
    seconds = chunk_times(denoiser, size, request_for(size.height, size.width, runs + 1), time.perf_counter)[1:]
    if rank == 0:
        Path(result).write_text(json.dumps(seconds))
    dist.destroy_process_group()


def show(report: dict[str, Any]) -> None:
    """The tables."""
    video = report["video"]
    table = Table(title=f"DiT, a chunk [1,1,1], size {report['size']}: median (min to max)")
    for column in ("", "s", "relative"):
        table.add_column(column, justify="right" if column else "left")
    flat = f"last / first quarter {video['last_over_first_quarter']:.3f}"
    table.add_row(f"over {len(video['chunk_s'])} chunks", _spread(video), flat)
    base = report["resolution"][0]
    for shape in report["resolution"]:
        work, cost = shape["flops"] / base["flops"], shape["median_s"] / base["median_s"]
        row = f"{shape['height']}x{shape['width']}"
        table.add_row(row, _spread(shape), f"time x{cost:.2f}, FLOP x{work:.2f}")
    for ranks in report["ranks"]:
        speedup = report["ranks"][0]["median_s"] / ranks["median_s"]
        table.add_row(f"{ranks['ranks']} rank(s), wall", _spread(ranks), f"speed-up {speedup:.2f}")
    Console(width=110).print(table)


def _spread(timing: dict[str, Any]) -> str:
    return f"{timing['median_s']:.3g} ({timing['min_s']:.3g} to {timing['max_s']:.3g})"


if __name__ == "__main__":
    main()
