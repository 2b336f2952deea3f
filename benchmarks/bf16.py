"""Whether bfloat16 costs ours more precision than it costs diffusers: `python -m benchmarks.bf16`.

Both run a step of the DiT in bfloat16, and diffusers runs it in float32 with the same values as weights: the error of
each is its relative distance to that. Few layers, so that float32 fits beside them at full size. On a CPU ours runs
the kernels' torch references.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.conditions import head
from benchmarks.peers import transformers
from benchmarks.records import RESULTS, write
from benchmarks.rows import STAGES, their_inputs
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import clock_name, tf32
from helios_engine.model.transformer import timestep_rows


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bf16", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/bf16-SIZE.json)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"bf16-{size.name}.json"
    report: dict[str, Any] = {
        **head("bf16", {"threads": 1, "clock": clock_name(size.device)}),
        "size": size.name,
        "layers": args.layers,
        "results": {},
    }
    for stage, errors in compare(size, args.layers):
        report["results"][stage] = errors
        write(output, report)
    show(report)
    print(f"written to {output}")


@torch.inference_mode()
def compare(size: Size, layers: int) -> Iterator[tuple[str, dict[str, float]]]:
    """For each pyramid stage: relative errors of ours and of diffusers in bfloat16, against diffusers in float32."""
    config = replace(size.transformer, num_layers=layers, is_amplify_history=False)  # see sizes.py
    device, height, width = torch.device(size.device), size.height // 8, size.width // 8
    ours, theirs = transformers(config, device, torch.bfloat16)
    _, exact = transformers(config, device, torch.float32)
    exact.load_state_dict({name: tensor.float() for name, tensor in theirs.state_dict().items()}, strict=False)
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, torch.bfloat16)

    past, anchor, embeds = (
        noise(1, 16, 19, height, width),
        noise(1, 16, 1, height, width),
        noise(1, 512, config.text_dim),
    )
    embeds[:, 20:] = 0  # a prompt of 20 tokens
    history, text = ours.encode_history(past, anchor), ours.encode_text(embeds)
    (timestep,) = timestep_rows([500.0], device)
    for stage, scale in enumerate(STAGES):
        latents = noise(1, 16, 9, height // scale, width // scale)
        inputs = their_inputs(embeds, past, anchor)
        wide = their_inputs(embeds.float(), past.float(), anchor.float())
        with tf32(matmul=False, convolutions=False):
            reference = exact(hidden_states=latents.float(), **wide)[0].double()
        made = {
            "ours": ours(latents, timestep, history, text),
            "diffusers": theirs(hidden_states=latents, **inputs)[0],
        }
        yield (
            f"DiT step, stage {stage}",
            {name: float((one.double() - reference).norm() / reference.norm()) for name, one in made.items()},
        )


def show(report: dict[str, Any]) -> None:
    """The table."""
    table = Table(title=f"Relative error in bfloat16, {report['layers']} layers, size {report['size']}")
    for column in ("", "ours", "diffusers"):
        table.add_column(column, justify="right" if column else "left")
    for stage, errors in report["results"].items():
        table.add_row(stage, *(f"{errors[peer]:.3%}" for peer in ("ours", "diffusers")))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
