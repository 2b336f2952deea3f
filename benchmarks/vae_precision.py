"""What decoding in 16 bits costs in precision and brings in speed: `python -m benchmarks.vae_precision`.

The same random weights decode the same latents in float32, float16 and bfloat16; the frames are compared as they go to
the H.264 encoder, in 8 bits. PSNR is of 255. Random weights make noise-like frames, the hardest case. On a GPU each
is timed with cuDNN's own choice of algorithms and with those that it finds fastest by trying (`cudnn.benchmark`).
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.conditions import head
from benchmarks.peers import random_weights
from benchmarks.records import RESULTS, write
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import clock_name, measure
from helios_engine.vae.decoder import VAEDecoder, WanDecoder

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PLAIN = "float32"


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
        **head("vae_precision", {"threads": 1, "clock": clock_name(size.device)}),
        "size": size.name,
    }
    for results in compare(size, args.runs):
        report["results"] = results
        write(output, report)
    show(report)
    print(f"written to {output}")


@torch.inference_mode()
def compare(size: Size, runs: int) -> Iterator[dict[str, Any]]:
    """How far the frames of each dtype are from float32's, and then seconds of a chunk for each dtype as well."""
    decoders = {name: decoder(size, dtype) for name, dtype in DTYPES.items()}
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(1, 16, 9, size.height // 8, size.width // 8, generator=generator)
    plain = torch.from_numpy(decoders[PLAIN].decode(latents))
    results: dict[str, Any] = {"precision": {}, "seconds": {}}
    for name, one in decoders.items():
        if name != PLAIN:
            results["precision"][name] = difference(plain, torch.from_numpy(one.decode(latents)))
            yield results
    for searched in (False, True) if size.device == "cuda" and runs else (False,) * bool(runs):
        works = {
            name + (SEARCHED if searched else ""): lambda one=one: one.decode(latents) for name, one in decoders.items()
        }
        with searching(searched):
            timings = measure(works, device=size.device, runs=runs, warmups=1)
        results["seconds"] |= {name: timing.record() for name, timing in timings.items()}
        yield results


SEARCHED = ", algorithms by trying"


@contextmanager
def searching(on: bool) -> Iterator[None]:
    """cuDNN tries its algorithms on the first tensors of each shape, or takes what its heuristics say."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def difference(plain: torch.Tensor, rounded: torch.Tensor) -> dict[str, float]:
    """PSNR, largest difference and share of equal levels of two 8-bit videos."""
    apart = (plain.int() - rounded.int()).abs()
    return {
        "psnr_db": psnr(plain, rounded),
        "largest_difference_levels": int(apart.max()),
        "share_of_equal_levels": float((apart == 0).double().mean()),
    }


def decoder(size: Size, dtype: torch.dtype) -> VAEDecoder:
    """A decoder with this size's random weights, the same for every dtype but for rounding."""
    with torch.device("meta"):
        model = WanDecoder(size.vae)
    weights = random_weights(model, torch.device(size.device), lambda _: dtype)
    model.load_state_dict(weights, assign=True)
    return VAEDecoder(model)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures, dB."""
    error = (one.double() - other.double()).square().mean()
    return float(10 * torch.log10(255.0**2 / error))


def show(report: dict[str, Any]) -> None:
    """The table."""
    table = Table(title=f"VAE decode in 16 bits against float32, size {report['size']}")
    for column in ("", "value"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in report["results"]["precision"].items():
        table.add_row(f"{name}: PSNR, dB", f"{found['psnr_db']:.1f}")
        table.add_row(f"{name}: largest difference, levels of 255", str(found["largest_difference_levels"]))
        table.add_row(f"{name}: equal levels", f"{found['share_of_equal_levels']:.1%}")
    for name, timing in report["results"]["seconds"].items():
        table.add_row(f"{name}, s a chunk", f"{timing['median']:.3g} ({timing['min']:.3g} to {timing['max']:.3g})")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
