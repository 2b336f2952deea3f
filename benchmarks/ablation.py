"""What each optimisation is worth: the part that it speeds up, with it and without it: `python -m benchmarks.ablation`.

One at a time is switched off, all others stay on; the two take turns. The plain versions live here, not in the engine.
"""

import argparse
import json
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

from benchmarks.ablation_case import Ablation
from benchmarks.ablation_gpu import GPU_ROWS, gpu_ablations
from benchmarks.conditions import conditions
from benchmarks.peers import build
from benchmarks.rows import PROMPT
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import clock_name, measure
from helios_engine import HeliosPipeline, onednn, transformer, vae, vae_layers
from helios_engine.transformer import HeliosTransformer, History

RESULTS = Path(__file__).parent / "results"
NOT_MEASURED = "not measured"


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

    dit, tokenizer = "DiT step, stage 2", pipeline.text_encoder.tokenizer
    yield Ablation(
        name="prompt's keys and values once per prompt",
        of=dit,
        with_it=step,
        without=lambda: model(latents, 500.0, history, model.encode_text(embeds)),
    )
    yield Ablation(
        name="history's tokens once per chunk",
        of=dit,
        with_it=step,
        without=lambda: model(latents, 500.0, model.encode_history(past, anchor), text),
    )
    yield Ablation(name="rotations once per shape", of=dit, with_it=step, without=without_cache)
    yield off(
        "prompt encoded at its own length",
        lambda: pipeline.text_encoder.encode([PROMPT]),
        "text encode",
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
    dit, chunk = "DiT step, stage 2", noise(*latents.shape)
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
        of=dit,
        with_it=step,
        without=lambda: model(latents, 500.0, history, whole_text),
    )
    yield off(
        "linear layers by oneDNN", step, dit, lambda: mock.patch.object(onednn.Linear, "forward", nn.Linear.forward)
    )
    yield off("3-D convolutions as sums of 2-D ones", decode, "VAE decode", plain_convolutions)
    yield off(
        "convolutions that add to their output",
        decode,
        "VAE decode",
        lambda: mock.patch.object(onednn, "add_convolved_", plain_add_convolved),
    )
    yield off(
        "doubling as a transposed convolution",
        decode,
        "VAE decode",
        lambda: mock.patch.object(vae, "onednn", SimpleNamespace(usable=lambda _: False)),
    )
    yield off("norms without extra passes, in place", decode, "VAE decode", plain_norms)
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
    """As the engine's linear layers."""
    layer = SimpleNamespace(weight=weight, bias=bias)
    return onednn.Linear.forward(layer, x)  # type: ignore[arg-type]


def plain_convolutions() -> AbstractContextManager[Any]:
    """torch's 3-D convolution over a padded copy."""

    def forward(self: Any, x_BCThw: torch.Tensor, carry: Any = None) -> torch.Tensor:
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
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/ablation-SIZE.json)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"ablation-{size.name}.json"
    clock = clock_name(size.device)
    table = Table(title=f"Each optimisation alone, size {size.name}: ms, {clock}, median (min to max)")
    for column in ("", "part", "with", "without", "worth", "taken"):
        table.add_column(column, justify="left" if column in ("", "part") else "right")
    results: list[dict[str, Any]] = []
    for one in ablations(size, build(size).ours):
        try:
            timings = measure({"with": one.with_it, "without": one.without}, device=size.device, runs=args.runs)
        except Exception as failure:  # whatever the compiler or the driver raises: the row says so
            results.append(row(one, f"failed: {' '.join(str(failure).split())[:160]}"))
            continue
        worth = timings["without"].median / timings["with"].median
        cells = (
            f"{t.median * 1e3:.4g} ({min(t.seconds) * 1e3:.4g} to {max(t.seconds) * 1e3:.4g})" for t in timings.values()
        )
        table.add_row(one.name, one.of, *cells, f"{worth:.2f}x", "yes" if one.taken else "no")
        results.append(row(one, worth) | {name: timing.record() for name, timing in timings.items()})
        print(f"{one.name}: {worth:.2f}x", file=sys.stderr, flush=True)
    if size.device == "cpu":
        results += [{"name": name, "part": part, "worth": NOT_MEASURED} for name, part in GPU_ROWS.items()]
    for unmeasured in (one for one in results if isinstance(one["worth"], str)):
        table.add_row(unmeasured["name"], unmeasured["part"], "-", "-", unmeasured["worth"], "-")
    report = {
        "command": " ".join(["python -m benchmarks.ablation", *sys.argv[1:]]),
        "conditions": {**conditions(), "threads": 1, "clock": clock},
        "size": size.name,
        "results": results,
    }
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    Console(width=150).print(table)
    print(f"written to {output}")


def row(one: Ablation, worth: float | str) -> dict[str, Any]:
    """What it is, and what it is worth."""
    return {"name": one.name, "part": one.of, "worth": worth, "taken": one.taken}


if __name__ == "__main__":
    main()
