"""How much host memory loading a checkpoint takes, and how long: `python -m benchmarks.load`.

A transformer of random weights in the published layout is written to a temporary folder and loaded in a fresh process,
once kept in host memory and once handed to a sink that drops each tensor, as if it left for a GPU. The files have just
been written, so they come from the page cache: times are those of copying and converting, not of a disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.conditions import head
from benchmarks.memory import PeakMemory, high_water, reset_high_water, resident
from benchmarks.random_checkpoint import config_of, write_transformer
from benchmarks.service import dig
from helios_engine.checkpoint.open import read_config
from helios_engine.checkpoint.weights import read_headers, stream_weights
from helios_engine.configs import TransformerConfig
from helios_engine.loading.shapes import transformer_shapes
from helios_engine.model.transformer import parameter_dtype

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
RESULT = Path(__file__).parent / "results" / "load-cpu.json"
GB = 1e9


def main() -> None:
    """Measures every stored dtype, kept and dropped, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the checkpoint")
    parser.add_argument("--shard-gigabytes", type=float, default=0.6, help="largest shard")
    parser.add_argument("--stored", choices=DTYPES, nargs="+", default=list(DTYPES), help="dtypes of the checkpoint")
    parser.add_argument("--target", choices=DTYPES, default="bfloat16", help="dtype that the model runs in")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "TARGET", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        folder, target, mode = args.measure
        print(json.dumps(measure(Path(folder), DTYPES[target], keep=mode == "kept")))
        return
    results = []
    for stored in args.stored:
        with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
            transformer = Path(folder) / "transformer"
            config = config_of(args.gigabytes * GB, DTYPES[stored])
            write_transformer(transformer, config, DTYPES[stored], args.shard_gigabytes * GB)
            for mode in ("kept", "dropped"):
                measured = in_fresh_process(transformer, args.target, mode)
                results.append({"stored": stored, "target": args.target, "weights": mode, **measured})
    report = {
        **head("load", {"page cache": "warm"}),
        "results": results,
    }
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    show(report, args.output)


def in_fresh_process(folder: Path, target: str, mode: str) -> dict[str, Any]:
    """`measure` in a process that has loaded nothing before."""
    command = [sys.executable, "-m", "benchmarks.load", "--measure", str(folder), target, mode]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    measured: dict[str, Any] = json.loads(printed)
    return measured


def measure(folder: Path, target: torch.dtype, *, keep: bool) -> dict[str, Any]:
    """Loads the transformer; bytes of memory are those beyond what the process had before."""
    expected = transformer_shapes(read_config(folder / "config.json", "HeliosTransformer3DModel", TransformerConfig))
    largest_shard = max(file.stat().st_size for file in {info.file for info in read_headers(folder).values()})
    kept: dict[str, torch.Tensor] = {}
    sizes: list[int] = []
    before = resident()
    reset_high_water()
    start = time.perf_counter()
    with PeakMemory() as memory:
        for name, tensor in stream_weights(
            folder, expected, device="cpu", dtype_of=lambda name: parameter_dtype(name, target)
        ):
            sizes.append(tensor.nbytes)
            if keep:
                kept[name] = tensor
            del tensor
        seconds = time.perf_counter() - start
    after = resident()
    peak = {kind: memory.peak[kind] - before[kind] for kind in before}
    process_peak = high_water()
    peak["all"] = process_peak - before["all"]
    weights = sum(sizes)
    return {
        "tensors": len(sizes),
        "checkpoint_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "shards": len(list(folder.glob("*.safetensors"))),
        "largest_shard_bytes": largest_shard,
        "weights_bytes": weights,
        "largest_weight_bytes": max(sizes),
        "seconds": seconds,
        "process_peak_bytes": process_peak,
        "peak_bytes": peak,
        "after_bytes": {kind: after[kind] - before[kind] for kind in before},
        "allowed_bytes": largest_shard + (weights if keep else 0),
        "peak_beyond_allowed_bytes": peak["all"] - largest_shard - (weights if keep else 0),
    }


def show(report: dict[str, Any], output: Path) -> None:
    """Prints the figures as a table."""
    console = Console()
    console.print(report["conditions"])
    results = report["results"]
    names = (f"{result['stored']} as {result['target']}, {result['weights']}" for result in results)
    table = Table(
        "figure (GB)", *names, title="loading a transformer on the CPU: memory beyond that of the process before"
    )
    for label, path in ROWS:
        table.add_row(label, *(f"{dig(result, path) / GB:.3f}" for result in results))
    table.add_row("seconds", *(f"{result['seconds']:.2f}" for result in results))
    console.print(table)
    console.print(f"written to {output}")


ROWS = [
    ("checkpoint", "checkpoint_bytes"),
    ("largest shard", "largest_shard_bytes"),
    ("weights", "weights_bytes"),
    ("allowed: largest shard, and weights if kept", "allowed_bytes"),
    ("peak, all (VmHWM)", "peak_bytes.all"),
    ("  beyond what is allowed", "peak_beyond_allowed_bytes"),
    ("peak, anonymous (sampled)", "peak_bytes.anonymous"),
    ("peak, file (sampled)", "peak_bytes.file"),
    ("peak of the process with its libraries", "process_peak_bytes"),
    ("afterwards, all", "after_bytes.all"),
]

if __name__ == "__main__":
    main()
