"""What decoding in bfloat16 costs in precision and brings in speed: `python -m benchmarks.vae_precision`.

The same random weights decode the same latents in float32 and in bfloat16 with channels last; the frames are compared
as they go to the H.264 encoder, in 8 bits. PSNR is of 255. Random weights make noise-like frames, the hardest case.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.conditions import conditions
from benchmarks.peers import random_weights
from benchmarks.records import RESULTS, write
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import clock_name, measure
from helios_engine.vae.decoder import VideoDecoder, WanDecoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vae_precision", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/vae-precision-SIZE.json)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"vae-precision-{size.name}.json"
    report: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.vae_precision", *sys.argv[1:]]),
        "conditions": conditions() | {"threads": 1, "clock": clock_name(size.device)},
        "size": size.name,
    }
    for results in compare(size, args.runs):
        report["results"] = results
        write(output, report)
    show(report)
    print(f"written to {output}")


@torch.inference_mode()
def compare(size: Size, runs: int) -> Iterator[dict[str, Any]]:
    """PSNR and largest difference of the frames, and then seconds of a chunk for each dtype as well."""
    decoders = {name: decoder(size, dtype) for name, dtype in DTYPES.items()}
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(1, 16, 9, size.height // 8, size.width // 8, generator=generator)
    plain, rounded = (torch.from_numpy(one.decode(latents)) for one in decoders.values())
    difference = (plain.int() - rounded.int()).abs()
    results: dict[str, Any] = {
        "psnr_db": psnr(plain, rounded),
        "largest_difference_levels": int(difference.max()),
        "share_of_equal_levels": float((difference == 0).double().mean()),
        "seconds": {},
    }
    yield results
    if runs:
        works = {name: lambda one=one: one.decode(latents) for name, one in decoders.items()}
        timings = measure(works, device=size.device, runs=runs, warmups=1)
        yield results | {"seconds": {name: timing.record() for name, timing in timings.items()}}


def decoder(size: Size, dtype: torch.dtype) -> VideoDecoder:
    """A decoder with this size's random weights, the same for every dtype but for rounding."""
    with torch.device("meta"):
        model = WanDecoder(size.vae)
    weights = random_weights(model, torch.device(size.device), lambda _: dtype)
    model.load_state_dict(weights, assign=True)
    return VideoDecoder(model)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures, dB."""
    error = (one.double() - other.double()).square().mean()
    return float(10 * torch.log10(255.0**2 / error))


def show(report: dict[str, Any]) -> None:
    """The table."""
    results = report["results"]
    table = Table(title=f"VAE decode in bfloat16 against float32, size {report['size']}")
    for column in ("", "value"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("PSNR, dB", f"{results['psnr_db']:.1f}")
    table.add_row("largest difference, levels of 255", str(results["largest_difference_levels"]))
    table.add_row("equal levels", f"{results['share_of_equal_levels']:.1%}")
    for name, timing in results["seconds"].items():
        table.add_row(f"{name}, s a chunk", f"{timing['median']:.3g} ({timing['min']:.3g} to {timing['max']:.3g})")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
