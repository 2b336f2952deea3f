"""The least time that each part of a chunk can take on a given GPU: `python -m benchmarks.roofline`.

A product takes at least its operations over the peak rate and at least its bytes over the bandwidth; parts are sums of
the larger of the two. Defaults: one H100 or H200 with 700 TFLOP/s of dense bf16 sustained and 3.35 TB/s; the VAE in
float32 runs at its own rate.
"""

import argparse
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from benchmarks.counts import Product, parts
from benchmarks.sizes import SIZES

TERA = 1e12


def floor_s(products: Iterable[Product], flops_per_s: float, bytes_per_s: float, itemsize: int) -> float:
    """The sum over products of max(compute time, memory time)."""
    return sum(max(p.flops / flops_per_s, p.elements * itemsize / bytes_per_s) for p in products)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="gpu-full")
    parser.add_argument("--tflops", type=float, default=700.0, help="peak rate of DiT and text encoder, TFLOP/s")
    parser.add_argument("--vae-tflops", type=float, default=350.0, help="peak rate of the VAE (TF32), TFLOP/s")
    parser.add_argument("--bandwidth", type=float, default=3.35, help="of device memory, TB/s")
    parser.add_argument("--vae-itemsize", type=int, default=4, help="bytes of a VAE element")
    args = parser.parse_args()
    size = SIZES[args.size]
    table = Table(title=f"Floor of a chunk, size {size.name}, {size.height}x{size.width}")
    for column in ("part", "TFLOP", "of these attention", "GB", "floor ms", "bound by"):
        table.add_column(column, justify="left" if column == "part" else "right")
    floors = {}
    for name, products in parts(size).items():
        is_vae = name.startswith("vae")
        rate = (args.vae_tflops if is_vae else args.tflops) * TERA
        itemsize = args.vae_itemsize if is_vae else size.dtype.itemsize
        flops, moved = sum(p.flops for p in products), sum(p.elements for p in products) * itemsize
        floors[name] = floor_s(products, rate, args.bandwidth * TERA, itemsize)
        table.add_row(
            name,
            f"{flops / TERA:.3g}",
            f"{sum(p.flops for p in products if p.attention) / TERA:.3g}",
            f"{moved / 1e9:.3g}",
            f"{floors[name] * 1e3:.4g}",
            "arithmetic" if flops / rate > moved / (args.bandwidth * TERA) else "memory",
        )
    Console(width=100).print(table)
    step = sum(floor for name, floor in floors.items() if name.startswith("dit"))
    for steps in (1, 2):
        print(f"DiT, [{steps},{steps},{steps}]: at least {steps * step:.4g} s a chunk: {33 / (steps * step):.4g} FPS")


if __name__ == "__main__":
    main()
