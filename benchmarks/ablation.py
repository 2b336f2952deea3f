"""What each optimisation is worth: the part that it speeds up, with it and without it: `python -m benchmarks.ablation`.

One at a time is switched off, all others stay on; the two take turns. The plain versions live here, not in the engine.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.conditions import conditions
from benchmarks.peers import build
from benchmarks.rows import PROMPT
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import clock_name, measure
from helios_engine import HeliosPipeline, onednn, transformer, vae, vae_layers
from helios_engine.transformer import HeliosTransformer

RESULT = Path(__file__).parent / "results" / "ablation-cpu.json"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """with_it, without: the same work. `of`: the part that is timed. taken: whether the engine has it."""

    name: str
    of: str
    with_it: Callable[[], object]
    without: Callable[[], object]
    taken: bool = True


def ablations(size: Size, pipeline: HeliosPipeline) -> list[Ablation]:
    """All of them, on this pipeline."""
    model, generator = plain_model(pipeline), torch.Generator().manual_seed(5)
    height, width = size.height // 8, size.width // 8

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    past, anchor = noise(1, 16, 19, height, width), noise(1, 16, 1, height, width)
    latents, chunk = noise(1, 16, 9, height, width), noise(1, 16, 9, height, width)
    with torch.inference_mode():
        embeds = pipeline.text_encoder.encode([PROMPT])
        history, text = model.encode_history(past, anchor), model.encode_text(embeds)
        with mock.patch.object(transformer, "_fold_padding", lambda embeds: (embeds, 1)):
            whole_text = model.encode_text(embeds)

    def step() -> object:
        return model(latents, 500.0, history, text)

    def decode() -> object:
        return pipeline.decoder.model(chunk)

    def without_cache() -> object:
        model.rotary.cache_clear()
        return step()

    def off(
        name: str, work: Callable[[], object], of: str, switch: Callable[[], AbstractContextManager[Any]]
    ) -> Ablation:
        def without() -> object:
            with switch():
                return work()

        return Ablation(name=name, of=of, with_it=work, without=without)

    dit, tokenizer = "DiT step, stage 2", pipeline.text_encoder.tokenizer
    x, (weight, bias) = (
        noise(1, history.tokens_BND.shape[1] + latents[0, 0].numel() // 4, 512),
        (noise(1536, 512), noise(1536)),
    )
    return [
        Ablation(
            name="prompt's keys and values once per prompt",
            of=dit,
            with_it=step,
            without=lambda: model(latents, 500.0, history, model.encode_text(embeds)),
        ),
        Ablation(
            name="prompt's padding folded into one key",
            of=dit,
            with_it=step,
            without=lambda: model(latents, 500.0, history, whole_text),
        ),
        Ablation(
            name="history's tokens once per chunk",
            of=dit,
            with_it=step,
            without=lambda: model(latents, 500.0, model.encode_history(past, anchor), text),
        ),
        Ablation(name="rotations once per shape", of=dit, with_it=step, without=without_cache),
        off(
            "linear layers by oneDNN", step, dit, lambda: mock.patch.object(onednn.Linear, "forward", nn.Linear.forward)
        ),
        off("3-D convolutions as sums of 2-D ones", decode, "VAE decode", plain_convolutions),
        off(
            "convolutions that add to their output",
            decode,
            "VAE decode",
            lambda: mock.patch.object(onednn, "add_convolved_", plain_add_convolved),
        ),
        off(
            "doubling as a transposed convolution",
            decode,
            "VAE decode",
            lambda: mock.patch.object(vae, "onednn", SimpleNamespace(usable=lambda _: False)),
        ),
        off("norms without extra passes, in place", decode, "VAE decode", plain_norms),
        off(
            "prompt encoded at its own length",
            lambda: pipeline.text_encoder.encode([PROMPT]),
            "text encode",
            lambda: mock.patch.object(pipeline.text_encoder, "tokenizer", full_length(tokenizer)),
        ),
        Ablation(
            name="queries, keys and values in one product",
            of="these products of a block",
            with_it=lambda: onednn_linear(x, weight, bias).chunk(3, dim=-1),
            without=lambda: [onednn_linear(x, *part) for part in zip(weight.chunk(3), bias.chunk(3), strict=True)],
            taken=False,
        ),
    ]


def plain_model(pipeline: HeliosPipeline) -> HeliosTransformer:
    """The pipeline's DiT, which is on one device."""
    model = pipeline.denoiser.transformer
    assert isinstance(model, HeliosTransformer)
    return model


def onednn_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """As the engine's linear layers."""
    layer = SimpleNamespace(weight=weight, bias=bias)
    return onednn.Linear.forward(layer, x)  # type: ignore[arg-type]


def plain_convolutions() -> AbstractContextManager[Any]:
    """torch's 3-D convolution over a padded copy."""

    def forward(self: Any, x_BCThw: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x_BCThw, (0, 0, 0, 0, self.past, 0)) if self.past else x_BCThw
        return F.conv3d(padded, self.weight, self.bias, padding=self.padding)

    return mock.patch.object(vae_layers.CausalConv3d, "forward", forward)


def plain_add_convolved(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, padding: list[int]) -> None:
    """A convolution, and then an addition."""
    out += F.conv2d(x, weight, padding=padding)


@contextmanager
def plain_norms() -> Any:
    """F.normalize, two products and SiLU, each into a tensor of its own."""

    def norm_silu(x: torch.Tensor, norm: vae_layers.ChannelRMSNorm, *, reuse: bool = False) -> torch.Tensor:
        return F.silu(F.normalize(x, dim=1) * len(norm.gamma) ** 0.5 * norm.gamma)

    with mock.patch.object(vae_layers, "norm_silu", norm_silu):
        yield


def full_length(tokenizer: Any) -> Callable[..., Any]:
    """The tokenizer, padding to 512 tokens whatever it is asked for."""
    return lambda prompts, **options: tokenizer(prompts, **options | {"padding": "max_length"})


def main() -> None:
    """Measures all, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=[name for name, size in SIZES.items() if size.device == "cpu"], default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[args.size]
    table = Table(title=f"Each optimisation alone, size {size.name}: ms, {clock_name('cpu')}, median (min to max)")
    for column in ("", "part", "with", "without", "worth", "taken"):
        table.add_column(column, justify="left" if column in ("", "part") else "right")
    results = []
    for one in ablations(size, build(size).ours):
        timings = measure({"with": one.with_it, "without": one.without}, device="cpu", runs=args.runs)
        worth = timings["without"].median / timings["with"].median
        cells = (
            f"{t.median * 1e3:.4g} ({min(t.seconds) * 1e3:.4g} to {max(t.seconds) * 1e3:.4g})" for t in timings.values()
        )
        table.add_row(one.name, one.of, *cells, f"{worth:.2f}x", "yes" if one.taken else "no")
        records = {name: timing.record() for name, timing in timings.items()}
        results.append({"name": one.name, "part": one.of, "worth": worth, "taken": one.taken, **records})
        print(f"{one.name}: {worth:.2f}x", file=sys.stderr, flush=True)
    report = {
        "command": " ".join(["python -m benchmarks.ablation", *sys.argv[1:]]),
        "conditions": {**conditions(), "threads": 1, "clock": clock_name("cpu")},
        "size": size.name,
        "results": results,
    }
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    Console(width=150).print(table)
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
