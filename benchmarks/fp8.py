"""What 8-bit linear layers cost in precision and bring in speed: `python -m benchmarks.fp8`.

The same random weights make the same chunks with and without them. The error is of the latents, relative, chunk by
chunk: each starts from the latents before it, so errors add up. On a CPU the arithmetic is that of the reference
(quantised, multiplied in float32), which says nothing of speed: that is measured on a GPU only. Random weights lack the
outliers that trained ones have.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.conditions import head
from benchmarks.peers import random_weights
from benchmarks.records import NOT_MEASURED, RESULTS, write
from benchmarks.rows import request_for
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import clock_name, measure
from helios_engine.accelerate.fp8 import quantise_linears
from helios_engine.model.transformer import HeliosTransformer, parameter_dtype
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fp8", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="in each pyramid stage")
    parser.add_argument("--runs", type=int, default=5, help="of a chunk, on a GPU")
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/fp8-SIZE.json)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"fp8-{size.name}.json"
    report: dict[str, Any] = {
        **head("fp8", {"threads": 1, "clock": clock_name(size.device)}),
        "size": size.name,
        "plain_dtype": str(size.dtype).removeprefix("torch."),
        "steps": args.steps,
    }
    for results in compare(size, args.chunks, args.steps, args.runs):
        report["results"] = results
        write(output, report)
    show(report)
    print(f"written to {output}")


def compare(size: Size, chunks: int, steps: int, runs: int) -> Iterator[dict[str, Any]]:
    """Relative error of each chunk's latents, and then on a GPU seconds of a chunk with and without as well."""
    denoisers = {"plain": denoiser(size, fp8=False), "fp8": denoiser(size, fp8=True)}
    made = {name: video(one, size, chunks, steps) for name, one in denoisers.items()}
    errors = [
        float((fp8.double() - plain.double()).norm() / plain.double().norm())
        for plain, fp8 in zip(made["plain"], made["fp8"], strict=True)
    ]
    yield {"latent_error_by_chunk": errors, "seconds": dict.fromkeys(denoisers, NOT_MEASURED)}
    if size.device == "cuda":
        works = {name: lambda one=one: video(one, size, 1, steps) for name, one in denoisers.items()}
        timings = measure(works, device=size.device, runs=runs)
        seconds = {name: timing.record() for name, timing in timings.items()}
        yield {"latent_error_by_chunk": errors, "seconds": seconds}


def denoiser(size: Size, *, fp8: bool) -> Denoiser:
    """A denoiser with random weights of this size, the same ones each time."""
    with torch.device("meta"):
        model = HeliosTransformer(size.transformer)
    device = torch.device(size.device)
    model.load_state_dict(random_weights(model, device, lambda name: parameter_dtype(name, size.dtype)), assign=True)
    if device.type == "cuda":
        model.join_projections()
    if fp8:
        quantise_linears(model)
    return Denoiser(model, size.scheduler)


def video(denoiser: Denoiser, size: Size, chunks: int, steps: int) -> list[torch.Tensor]:
    """Latents of each chunk."""
    embeds = torch.randn(1, 512, size.transformer.text_dim, generator=torch.Generator().manual_seed(2))
    embeds[:, 20:] = 0  # a prompt of 20 tokens
    state, made = DenoiseState.initial(request_for(size, steps)), []
    for _ in range(chunks):
        latents, state = denoiser.denoise_chunk(state, embeds)
        made.append(latents)
    return made


def show(report: dict[str, Any]) -> None:
    """The table."""
    table = Table(title=f"8-bit linear layers against {report['plain_dtype']}, size {report['size']}")
    for column in ("", "value"):
        table.add_column(column, justify="right" if column else "left")
    for chunk, error in enumerate(report["results"]["latent_error_by_chunk"]):
        table.add_row(f"relative error of the latents, chunk {chunk}", f"{error:.2%}")
    for name, timing in report["results"]["seconds"].items():
        shown = timing if isinstance(timing, str) else f"{timing['median']:.4g}"
        table.add_row(f"{name}, s a chunk", shown)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
