"""The DiT's matrix products and attention, each alone, in the rates that they reach: `python -m benchmarks.products`.

The products are those of one block at the token counts of the three pyramid stages: in the size's dtype, and in 8 bits
with and without the quantisation of their input. Attention is timed with every kernel that computes it here. A rate far
below the machine's best product says where a step loses time.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.conditions import conditions
from benchmarks.counts import attention, linear
from benchmarks.kernel_timing import time_function
from benchmarks.records import RESULTS, failed, write
from benchmarks.rows import STAGES
from benchmarks.sizes import SIZES, Size
from helios_engine.accelerate.fp8 import Float8Linear, check_device
from helios_engine.ops.attention_backends import candidates
from helios_engine.tokens import history_tokens, noisy_tokens

REPETITIONS = {"cpu": 3, "cuda": 20}
Work = Callable[[], object]


def main() -> None:
    """Measures, prints the table and writes the JSON after each row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/products-SIZE.json)")
    args = parser.parse_args()
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"products-{size.name}.json"
    report: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.products", *sys.argv[1:]]),
        "conditions": conditions(),
        "size": size.name,
        "results": [],
    }
    for row in measured(size):
        report["results"].append(row)
        write(output, report)
    show(report)
    print(f"written to {output}")


@torch.inference_mode()
def measured(size: Size) -> Iterator[dict[str, Any]]:
    """One row for each product and kernel: what it is, its FLOP, its time, its rate or why there is none."""
    device = torch.device(size.device)
    repetitions = REPETITIONS[size.device]
    for stage, scale in enumerate(STAGES):
        history, noisy = history_tokens(size.height, size.width), noisy_tokens(size.height, size.width, scale)
        for name, flops, works in (*_linears(size, history + noisy), _attention(size, history + noisy)):
            for way, make in works.items():
                row: dict[str, Any] = {"pyramid_stage": stage, "tokens": history + noisy, "product": name, "way": way}
                try:
                    timing = time_function(make(), device, repetitions)
                except (RuntimeError, ValueError, NotImplementedError) as failure:  # not on this device, or too large
                    yield row | {"failed": failed(failure)}
                    continue
                yield row | {"flops": flops, **timing.as_json(), "flops_per_s": flops / (timing.median_us * 1e-6)}


def _linears(size: Size, count: int) -> Iterator[tuple[str, int, dict[str, Callable[[], Work]]]]:
    config, device = size.transformer, torch.device(size.device)
    width, inner = config.inner_dim, config.ffn_dim
    for name, inputs, outputs in (
        ("queries, keys, values", width, 3 * width),
        ("attention output", width, width),
        ("feed-forward, up", width, inner),
        ("feed-forward, down", inner, width),
    ):
        x = torch.randn(count, inputs, device=device).to(size.dtype)

        def plain(x: torch.Tensor = x, outputs: int = outputs) -> Work:
            layer = nn.Linear(x.shape[1], outputs, device=device, dtype=size.dtype)
            return lambda: layer(x)

        def eight_bit(x: torch.Tensor = x, outputs: int = outputs) -> Work:
            check_device(device, size.dtype)
            drawn = nn.Linear(x.shape[1], outputs, device=device, dtype=size.dtype)
            layer = Float8Linear(drawn.weight, drawn.bias)
            return lambda: layer(x)

        def eight_bit_product(x: torch.Tensor = x, outputs: int = outputs) -> Work:
            check_device(device, size.dtype)
            drawn = nn.Linear(x.shape[1], outputs, device=device, dtype=size.dtype)
            layer = Float8Linear(drawn.weight, drawn.bias)
            x8, scale = layer.quantised(x)
            return lambda: layer.product(x8, scale, x.dtype)

        ways: dict[str, Callable[[], Work]] = {
            "plain": plain,
            "8 bits": eight_bit,
            "8 bits, product alone": eight_bit_product,
        }
        yield name, linear(count, inputs, outputs).flops, ways


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
