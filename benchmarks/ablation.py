"""What each optimisation is worth: the part that it speeds up, with it and without it: `python -m benchmarks.ablation`.

One at a time is switched off, all others stay on; the two take turns. The plain versions live here, not in the engine.
The file is written after each row; what it holds stays unless it is measured anew (--fresh: begin anew).
"""

import argparse
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.ablation_case import COMMON_ROWS, DECODE, DIT, GPU_ROWS, TEXT, Ablation
from benchmarks.ablation_gpu import gpu_ablations
from benchmarks.conditions import head
from benchmarks.peers import build
from benchmarks.records import NOT_MEASURED, RESULTS, failed, is_measured, read, write
from benchmarks.rows import PROMPT
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import clock_name, measure
from helios_engine import HeliosPipeline
from helios_engine.model import transformer
from helios_engine.model.transformer import HeliosTransformer, History
from helios_engine.ops import onednn
from helios_engine.vae import decoder as vae
from helios_engine.vae import layers as vae_layers


def ablations(size: Size, pipeline: HeliosPipeline) -> Iterator[Ablation]:
    """All of the size's device, on this pipeline."""
    model, generator = plain_model(pipeline), torch.Generator().manual_seed(5)
    height, width = size.height // 8, size.width // 8

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(size.device)

    past, anchor = (noise(1, 16, frames, height, width).to(size.dtype) for frames in (19, 1))
    latents = noise(1, 16, 9, height, width).to(size.dtype)
    with torch.inference_mode():
        embeds = pipeline.text_encoder.encode([PROMPT]).to(size.device, size.dtype)
        history, text = model.encode_history(past, anchor), model.encode_text(embeds)

    def step() -> object:
        return model(latents, 500.0, history, text)

    def without_cache() -> object:
        model.rotary.cache_clear()
        return step()

    tokenizer = pipeline.text_encoder.tokenizer
    without: dict[str, Callable[[], object]] = {
        "prompt's keys and values once per prompt": lambda: model(latents, 500.0, history, model.encode_text(embeds)),
        "history's tokens once per chunk": lambda: model(latents, 500.0, model.encode_history(past, anchor), text),
        "rotations once per shape": without_cache,
    }
    for name, work in without.items():
        yield Ablation(name=name, of=COMMON_ROWS[name], with_it=step, without=work)
    yield off(
        "prompt encoded at its own length",
        lambda: pipeline.text_encoder.encode([PROMPT]),
        TEXT,
        lambda: mock.patch.object(pipeline.text_encoder, "tokenizer", full_length(tokenizer)),
    )
    if size.device == "cuda":
        yield from gpu_ablations(size, pipeline, model, history, text, noise)
    else:
        yield from cpu_ablations(pipeline, model, history, embeds, latents, noise)


def cpu_ablations(
    pipeline: HeliosPipeline,
    model: HeliosTransformer,
    history: History,
    embeds: torch.Tensor,
    latents: torch.Tensor,
    noise: Callable[..., torch.Tensor],
) -> Iterator[Ablation]:
    """What only CPUs have."""
    chunk = noise(*latents.shape)
    with torch.inference_mode():
        text = model.encode_text(embeds)
        with mock.patch.object(transformer, "_fold_padding", lambda embeds: (embeds, 1)):
            whole_text = model.encode_text(embeds)

    def step() -> object:
        return model(latents, 500.0, history, text)

    def decode() -> object:
        return pipeline.decoder.model(chunk)

    yield Ablation(
        name="prompt's padding folded into one key",
        of=DIT,
        with_it=step,
        without=lambda: model(latents, 500.0, history, whole_text),
    )
    yield off(
        "linear layers by oneDNN", step, DIT, lambda: mock.patch.object(onednn.Linear, "forward", nn.Linear.forward)
    )
    yield off("3-D convolutions as sums of 2-D ones", decode, DECODE, plain_convolutions)
    yield off(
        "convolutions that add to their output",
        decode,
        DECODE,
        lambda: mock.patch.object(onednn, "add_convolved_", plain_add_convolved),
    )
    yield off(
        "doubling as a transposed convolution",
        decode,
        DECODE,
        lambda: mock.patch.object(vae, "onednn", SimpleNamespace(usable=lambda _: False)),
    )
    yield off("norms without extra passes, in place", decode, DECODE, plain_norms)
    x = noise(1, history.tokens_BND.shape[1] + latents[0, 0].numel() // 4, 512)
    weight, bias = noise(1536, 512), noise(1536)
    yield Ablation(
        name="queries, keys and values in one product",
        of="these products of a block",
        with_it=lambda: onednn_linear(x, weight, bias).chunk(3, dim=-1),
        without=lambda: [onednn_linear(x, *part) for part in zip(weight.chunk(3), bias.chunk(3), strict=True)],
        taken=False,
    )


def off(name: str, work: Callable[[], object], of: str, switch: Callable[[], AbstractContextManager[Any]]) -> Ablation:
    """Work that is done without the optimisation while the switch is entered."""

    def without() -> object:
        with switch():
            return work()

    return Ablation(name=name, of=of, with_it=work, without=without)


def plain_model(pipeline: HeliosPipeline) -> HeliosTransformer:
    """The pipeline's DiT, which is on one device."""
    model = pipeline.denoiser.transformer
    assert isinstance(model, HeliosTransformer)
    return model


def onednn_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A linear layer as the engine computes it on a CPU."""
    layer = SimpleNamespace(weight=weight, bias=bias)
    return onednn.Linear.forward(layer, x)  # type: ignore[arg-type]


def plain_convolutions() -> AbstractContextManager[Any]:
    """torch's 3-D convolution over a padded copy."""

    def convolve(self: Any, x_BCThw: torch.Tensor, front: int, carry: Any) -> torch.Tensor:
        missing = self.past - front
        padded = F.pad(x_BCThw, (0, 0, 0, 0, missing, 0)) if missing else x_BCThw
        return F.conv3d(padded, self.weight, self.bias, padding=self.padding)

    return mock.patch.object(vae_layers.CausalConv3d, "convolve", convolve)


def plain_add_convolved(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, padding: list[int]) -> None:
    """A convolution, and then an addition."""
    out += F.conv2d(x, weight, padding=padding)


@contextmanager
def plain_norms() -> Any:
    """F.normalize, two products and SiLU, each into a tensor of its own."""

    def channel_norm(x: torch.Tensor, gamma: torch.Tensor, *, silu: bool, **_: Any) -> torch.Tensor:
        normed = F.normalize(x, dim=1) * len(gamma) ** 0.5 * gamma.view(-1, 1, 1, 1)
        return F.silu(normed) if silu else normed

    with mock.patch.object(vae_layers, "channel_norm", channel_norm):
        yield


def full_length(tokenizer: Any) -> Callable[..., Any]:
    """The tokenizer, padding to 512 tokens whatever it is asked for."""
    return lambda prompts, **options: tokenizer(prompts, **options | {"padding": "max_length"})


def main() -> None:
    """Measures all, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--missing", action="store_true", help="only rows that the file has no measurement of")
    parser.add_argument("--fresh", action="store_true", help="forget what the file holds")
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/ablation-SIZE.json)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"ablation-{size.name}.json"
    report: dict[str, Any] = {
        **head("ablation", {"threads": 1, "clock": clock_name(size.device)}),
        "size": size.name,
    }
    known = [] if args.fresh else read(output).get("results", [])
    rows: dict[str, dict[str, Any]] = {one["name"]: one for one in known}
    done = {name for name, one in rows.items() if is_measured(one["worth"])} if args.missing else set()
    for one in ablations(size, build(size).ours):
        if one.name not in done:
            measured = measure_one(one, size, args.runs)
            print(f"{one.name}: {measured['worth']}", file=sys.stderr, flush=True)
            if is_measured(measured["worth"]) or not is_measured(rows.get(one.name, {}).get("worth")):
                rows[one.name] = measured
            write(output, report | {"results": list(rows.values())})
    for name, part in (COMMON_ROWS | GPU_ROWS).items():
        rows.setdefault(name, {"name": name, "part": part, "worth": NOT_MEASURED})
    write(output, report | {"results": list(rows.values())})
    show(report | {"results": list(rows.values())})
    print(f"written to {output}")


def measure_one(one: Ablation, size: Size, runs: int) -> dict[str, Any]:
    """What it is, and what it is worth or why that is not known."""
    record: dict[str, Any] = {"name": one.name, "part": one.of, "taken": one.taken}
    try:
        timings = measure({"with": one.with_it, "without": one.without}, device=size.device, runs=runs)
        worth = timings["without"].median / timings["with"].median
        record |= {"worth": worth} | {name: timing.record() for name, timing in timings.items()}
    except Exception as failure:  # whatever the compiler or the driver raises: the row says so
        record["worth"] = failed(failure)
    gc.collect()
    if size.device == "cuda":
        torch.cuda.empty_cache()
    return record


def show(report: dict[str, Any]) -> None:
    """The table."""
    clock = report["conditions"]["clock"]
    table = Table(title=f"Each optimisation alone, size {report['size']}: ms, {clock}, median (min to max)")
    for column in ("", "part", "with", "without", "worth", "taken"):
        table.add_column(column, justify="left" if column in ("", "part") else "right")
    for one in report["results"]:
        if is_measured(one["worth"]):
            cells = [
                f"{one[way]['median'] * 1e3:.4g} ({one[way]['min'] * 1e3:.4g} to {one[way]['max'] * 1e3:.4g})"
                for way in ("with", "without")
            ]
            table.add_row(one["name"], one["part"], *cells, f"{one['worth']:.2f}x", "yes" if one["taken"] else "no")
        else:
            table.add_row(one["name"], one["part"], "-", "-", one["worth"], "-")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
