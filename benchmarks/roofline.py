"""The least time that each part of a chunk can take on a given GPU: `python -m benchmarks.roofline`.

A product takes at least its operations over the peak rate and at least its bytes over the bandwidth; parts are sums of
the larger of the two. Defaults: one H100 or H200 with 700 TFLOP/s of dense bf16 sustained and 3.35 TB/s; the VAE in
float32 runs at its own rate. Computed from counts: nothing is measured.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.counts import Product, parts
from benchmarks.sizes import SIZES, Size

TERA = 1e12


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Rates in FLOP/s, bandwidth in bytes/s, and the bytes of an element of the VAE."""

    flops_per_s: float = 700 * TERA
    vae_flops_per_s: float = 350 * TERA
    bytes_per_s: float = 3.35 * TERA
    vae_itemsize: int = 4


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What a part of a chunk takes at least."""

    part: str
    flops: int
    attention_flops: int
    bytes: int
    rate: float
    bytes_per_s: float
    seconds: float

    @property
    def bound_by(self) -> str:
        """Which of the two takes longer for all products together."""
        return "arithmetic" if self.flops / self.rate > self.bytes / self.bytes_per_s else "memory"


def floor_s(products: Iterable[Product], flops_per_s: float, bytes_per_s: float, itemsize: int) -> float:
    """The sum over products of max(compute time, memory time)."""
    return sum(max(p.flops / flops_per_s, p.elements * itemsize / bytes_per_s) for p in products)


def floors(size: Size, machine: Machine) -> list[Floor]:
    """All parts of a chunk."""
    found = []
    for name, products in parts(size).items():
        is_vae = name.startswith("vae")
        rate = machine.vae_flops_per_s if is_vae else machine.flops_per_s
        itemsize = machine.vae_itemsize if is_vae else size.dtype.itemsize
        found.append(
            Floor(
                part=name,
                flops=sum(p.flops for p in products),
                attention_flops=sum(p.flops for p in products if p.attention),
                bytes=sum(p.elements for p in products) * itemsize,
                rate=rate,
                bytes_per_s=machine.bytes_per_s,
                seconds=floor_s(products, rate, machine.bytes_per_s, itemsize),
            )
        )
    return found


def dit_chunk_s(found: Iterable[Floor], steps: int) -> float:
    """The DiT's floor for a chunk of this many steps in each stage."""
    return steps * sum(floor.seconds for floor in found if floor.part.startswith("dit"))


def plot(found: list[Floor], machine: Machine, path: Path, title: str) -> None:
    """Draws the parts under the roof, and how long each takes at least."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (roof, bars) = pyplot.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout="constrained")
    intensities = [2.0 ** (power / 16) for power in range(48, 225)]
    for rate, label, style in (
        (machine.flops_per_s, "DiT and text: bfloat16", "-"),
        (machine.vae_flops_per_s, "VAE: float32 (TF32)", "--"),
    ):
        roofs = [min(rate, machine.bytes_per_s * intensity) / TERA for intensity in intensities]
        roof.loglog(intensities, roofs, style, color="grey", linewidth=1, label=label)
    for floor in found:
        roof.loglog(floor.flops / floor.bytes, floor.flops / floor.seconds / TERA, "o", label=floor.part)
    roof.set_xlabel("operations per byte")
    roof.set_ylabel("TFLOP/s at most")
    roof.legend(fontsize=8)
    shown = found[::-1]
    drawn = bars.barh([floor.part for floor in shown], [floor.seconds * 1e3 for floor in shown], color="steelblue")
    bars.bar_label(drawn, fmt="%.3g", padding=3)
    bars.margins(x=0.15)
    bars.set_xlabel("ms at least")
    figure.suptitle(title)
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Prints the table; draws it where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="gpu-full")
    parser.add_argument("--tflops", type=float, default=700.0, help="peak rate of DiT and text encoder, TFLOP/s")
    parser.add_argument("--vae-tflops", type=float, default=350.0, help="peak rate of the VAE (TF32), TFLOP/s")
    parser.add_argument("--bandwidth", type=float, default=3.35, help="of device memory, TB/s")
    parser.add_argument("--vae-itemsize", type=int, default=4, help="bytes of a VAE element")
    parser.add_argument("--plot", type=Path, help="also draws it to this file")
    args = parser.parse_args()
    size = SIZES[args.size]
    machine = Machine(
        flops_per_s=args.tflops * TERA,
        vae_flops_per_s=args.vae_tflops * TERA,
        bytes_per_s=args.bandwidth * TERA,
        vae_itemsize=args.vae_itemsize,
    )
    found = floors(size, machine)
    title = f"Floor of a chunk, size {size.name}, {size.height}x{size.width}"
    table = Table(title=title)
    for column in ("part", "TFLOP", "of these attention", "GB", "floor ms", "bound by"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for floor in found:
        table.add_row(*cells(floor))
    Console(width=100).print(table)
    for steps in (1, 2):
        seconds = dit_chunk_s(found, steps)
        print(f"DiT, [{steps},{steps},{steps}]: at least {seconds:.4g} s a chunk: {33 / seconds:.4g} FPS")
    if args.plot is not None:
        plot(found, machine, args.plot, title)
        print(f"drawn to {args.plot}")


def cells(floor: Floor) -> tuple[str, ...]:
    """A row of the table."""
    return (
        floor.part,
        f"{floor.flops / TERA:.3g}",
        f"{floor.attention_flops / TERA:.3g}",
        f"{floor.bytes / 1e9:.3g}",
        f"{floor.seconds * 1e3:.4g}",
        floor.bound_by,
    )


if __name__ == "__main__":
    main()
