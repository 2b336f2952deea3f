"""What the machine is, before anything is measured on it: `python -m benchmarks.machine`.

Versions that decide which kernels there are (cuDNN's among them), memory, power and clocks, and the rates of a large
matrix product and of a copy, which say at once whether the GPU is throttled or shared.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.ceilings import ceilings
from benchmarks.conditions import conditions
from benchmarks.records import RESULTS, write
from benchmarks.sizes import SIZES, Size


def main() -> None:
    """Prints what is found and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machine", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cpu", help="its device is looked at, and its dtype used")
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/machine-SIZE.json)")
    args = parser.parse_args()
    size = SIZES[args.size]
    report = {"conditions": conditions(), "results": look(size)}
    print(json.dumps(report, indent=2))
    write(args.output or RESULTS / f"machine-{size.name}.json", report)


def look(size: Size) -> dict[str, Any]:
    """Rates, and on a GPU the libraries and the memory that is free."""
    found: dict[str, Any] = dict(ceilings(size).record())
    if size.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        found |= {
            "cudnn": torch.backends.cudnn.version(),
            "compute_capability": list(torch.cuda.get_device_capability()),
            "gpus": torch.cuda.device_count(),
            "free_bytes": free,
            "total_bytes": total,
        }
    return found


if __name__ == "__main__":
    main()
