"""The DiT's matrix products and attention, each alone, in the rates that they reach: `python -m benchmarks.products`.

The products are those of one block at the token counts of the three pyramid stages: in the size's dtype, and in 8 bits
with and without the quantisation of their input. Attention is timed with every kernel that computes it here. A rate far
below the machine's best product says where a step loses time.
"""

import argparse
from collections.abc import Callable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.conditions import head
from benchmarks.counts import attention, linear
from benchmarks.kernel_timing import time_function
from benchmarks.records import RESULTS, failed, read, write
from benchmarks.rows import STAGES
from benchmarks.sizes import SIZES, Size
from helios_engine.accelerate.fp8 import Float8Linear, check_device
from helios_engine.ops.attention_backends import candidates
from helios_engine.tokens import history_tokens, noisy_tokens

REPETITIONS = {"cpu": 3, "cuda": 20}
Work = Callable[[], object]
Key = tuple[int, str, str]
"""A row: pyramid stage, product, way."""


def main() -> None:
    """Measures, prints the table and writes the JSON after each row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--missing", action="store_true", help="only rows that the file has no times of")
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/products-SIZE.json)")
    args = parser.parse_args()
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"products-{size.name}.json"
    report: dict[str, Any] = {**head("products"), "size": size.name}
    known = {key(row): row for row in read(output).get("results", [])}
    done = {name for name, row in known.items() if args.missing and "failed" not in row}
    for row in measured(size, done):
        if "failed" not in row or "failed" in known.get(key(row), {"failed": ""}):
            known[key(row)] = row
        write(output, report | {"results": list(known.values())})
    show(report | {"results": list(known.values())})
    print(f"written to {output}")


def key(row: dict[str, Any]) -> Key:
    """What a row measures."""
    return row["pyramid_stage"], row["product"], row["way"]


def row_count() -> int:
    """How many rows there are to measure, whatever the size."""
    return len(STAGES) * (len(WAYS) * len(widths(SIZES["cpu"])) + len(candidates()))


@torch.inference_mode()
def measured(size: Size, done: Set[Key]) -> Iterator[dict[str, Any]]:
    """A row for each product and way that is not done: what it is, its FLOP, time and rate, or why there is none."""
    device = torch.device(size.device)
    for stage, scale in enumerate(STAGES):
        count = history_tokens(size.height, size.width) + noisy_tokens(size.height, size.width, scale)
        for name, flops, works in (*_linears(size, count), _attention(size, count)):
            for way, make in works.items():
                if (stage, name, way) in done:
                    continue
                row: dict[str, Any] = {"pyramid_stage": stage, "tokens": count, "product": name, "way": way}
                try:
                    timing = time_function(make(), device, REPETITIONS[size.device])
                except (RuntimeError, ValueError, NotImplementedError) as failure:  # not on this device, or too large
                    yield row | {"failed": failed(failure)}
                    continue
                yield row | {"flops": flops, **timing.as_json(), "flops_per_s": flops / (timing.median_us * 1e-6)}


def widths(size: Size) -> dict[str, tuple[int, int]]:
    """The features into and out of each product of a block."""
    width, inner = size.transformer.inner_dim, size.transformer.ffn_dim
    return {
        "queries, keys, values": (width, 3 * width),
        "attention output": (width, width),
        "feed-forward, up": (width, inner),
        "feed-forward, down": (inner, width),
    }


def _linears(size: Size, count: int) -> Iterator[tuple[str, int, dict[str, Callable[[], Work]]]]:
    for name, (inputs, outputs) in widths(size).items():
        x = torch.randn(count, inputs, device=torch.device(size.device)).to(size.dtype)
        works: dict[str, Callable[[], Work]] = {way: partial(make, x, outputs) for way, make in WAYS.items()}
        yield name, linear(count, inputs, outputs).flops, works


def _plain(x: torch.Tensor, outputs: int) -> Work:
    layer = nn.Linear(x.shape[1], outputs, device=x.device, dtype=x.dtype)
    return lambda: layer(x)


def _eight_bit(x: torch.Tensor, outputs: int) -> Work:
    layer = _eight_bit_layer(x, outputs)
    return lambda: layer(x)


def _eight_bit_product(x: torch.Tensor, outputs: int) -> Work:
    layer = _eight_bit_layer(x, outputs)
    x8, scale = layer.quantised(x)
    return lambda: layer.product(x8, scale, x.dtype)


def _eight_bit_layer(x: torch.Tensor, outputs: int) -> Float8Linear:
    check_device(x.device, x.dtype)
    drawn = nn.Linear(x.shape[1], outputs, device=x.device, dtype=x.dtype)
    return Float8Linear(drawn.weight, drawn.bias)


WAYS: dict[str, Callable[[torch.Tensor, int], Work]] = {
    "plain": _plain,
    "8 bits": _eight_bit,
    "8 bits, product alone": _eight_bit_product,
}


def _attention(size: Size, count: int) -> tuple[str, int, dict[str, Callable[[], Work]]]:
    config, device = size.transformer, torch.device(size.device)
    shape = (1, count, config.num_attention_heads, config.attention_head_dim)
    q, k, v = (torch.randn(shape, device=device).to(size.dtype) for _ in range(3))

    def by(name: str) -> Callable[[], Work]:
        return lambda: lambda: candidates()[name](q, k, v)

    return "attention", attention(count, count, config.inner_dim).flops, {name: by(name) for name in candidates()}


def show(report: dict[str, Any]) -> None:
    """The table."""
    table = Table(title=f"Products and attention, size {report['size']}")
    for column in ("tokens", "product", "way", "us", "TFLOP/s"):
        table.add_column(column, justify="left" if column in ("product", "way") else "right")
    for row in report["results"]:
        figures = [row["failed"], "-"] if "failed" in row else [f"{row['median_us']:.0f}", _rate(row)]
        table.add_row(str(row["tokens"]), row["product"], row["way"], *figures)
    Console(width=120).print(table)


def _rate(row: dict[str, Any]) -> str:
    return f"{row['flops_per_s'] / 1e12:.3g}"


if __name__ == "__main__":
    main()
