"""Where the time of one chunk goes, kernel by kernel: `python -m benchmarks.chunk_profile`.

One chunk at [1,1,1] with its decoding runs under torch's profiler, after a warm-up. The JSON names the kernels that
took most of the time with their calls. It sums them up by kind: products, attention, convolutions, our Triton kernels,
all else. On a CPU the operators stand in for the kernels.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.conditions import head
from benchmarks.peers import build
from benchmarks.records import RESULTS, write
from benchmarks.rows import PROMPT, request_for
from benchmarks.sizes import SIZES, Size
from helios_engine.sampling.state import DenoiseState

TOP = 40
KINDS = {
    "attention": ("flash", "attention", "fmha", "cudnn_generated_fort_native_sdpa", "softmax"),
    "convolutions": ("conv", "implicit", "dgrad", "xmma_fprop"),
    "products": ("gemm", "cutlass", "nvjet", "cublas", "matmul", "addmm", "::mm", "linear", "scaled_mm"),
    "Triton kernels": ("_kernel", "triton"),
    "copies": ("memcpy", "memset", "copy"),
}
"""Parts of kernels' names, the first kind that fits wins."""


def main() -> None:
    """Profiles, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunk_profile", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/chunk-profile-SIZE.json)")
    args = parser.parse_args()
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"chunk-profile-{size.name}.json"
    report: dict[str, Any] = {
        **head("chunk_profile"),
        "size": size.name,
        "results": profiled(size),
    }
    write(output, report)
    show(report)
    print(f"written to {output}")


def profiled(size: Size) -> dict[str, Any]:
    """Microseconds by kind, and the kernels that took most: name, calls, microseconds."""
    pipeline = build(size).ours
    embeds = pipeline.text_encoder.encode([PROMPT])
    state = DenoiseState.initial(request_for(size, 1))

    def chunk() -> None:
        latents, _ = pipeline.denoiser.denoise_chunk(state, embeds)
        pipeline.decoder.decode(latents)

    chunk()
    on_gpu = size.device == "cuda" and torch.version.cuda is not None
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as made:
        chunk()
    kernels = []
    for event in made.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent > 0:
            kernels.append({"name": event.key, "calls": event.count, "us": spent})
    kernels.sort(key=lambda kernel: -kernel["us"])
    by_kind: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        by_kind[kind_of(kernel["name"])] += kernel["us"]
    return {"us_by_kind": dict(by_kind), "kernels": kernels[:TOP]}


def kind_of(name: str) -> str:
    """The kind of work that a kernel of this name does."""
    lowered = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lowered for part in parts)), "all else")


def show(report: dict[str, Any]) -> None:
    """Both tables."""
    results = report["results"]
    total = sum(results["us_by_kind"].values())
    table = Table(title=f"One chunk [1,1,1] with decoding, size {report['size']}: {total / 1e3:.1f} ms of work")
    for column in ("", "ms", "share"):
        table.add_column(column, justify="right" if column else "left")
    for kind, spent in sorted(results["us_by_kind"].items(), key=lambda item: -item[1]):
        table.add_row(kind, f"{spent / 1e3:.2f}", f"{spent / total:.0%}")
    for kernel in results["kernels"][:15]:
        table.add_row(f"  {kernel['name'][:90]} x{kernel['calls']}", f"{kernel['us'] / 1e3:.2f}", "")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
