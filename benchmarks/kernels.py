"""Each kernel against its torch reference, that reference under torch.compile, and the memory's bandwidth.

`python -m benchmarks.kernels` on the present device: full sizes on a GPU, small ones on a CPU, where no Triton kernel
runs. The roofline is the time to move each argument and result once at the bandwidth measured for a copy; on a CPU
there is none, as arguments of these sizes stay in its caches.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.conditions import head
from benchmarks.kernel_cases import FULL, SMALL, Case, cases
from benchmarks.kernel_timing import copy_bandwidth, time_function
from benchmarks.records import RESULTS, failed, read, write

NOT_MEASURED = "not measured (no GPU)"


def main() -> None:
    """Measures every case, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=None, help="default: 100 on a GPU, 20 on a CPU")
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--missing", action="store_true", help="only kernels that the file has no times of")
    parser.add_argument("--output", type=Path, default=None)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    repetitions = args.repetitions or (100 if device.type == "cuda" else 20)
    output = args.output or RESULTS / f"kernels-{'gpu-full' if device.type == 'cuda' else 'cpu'}.json"
    report: dict[str, Any] = {
        **head("kernels", gpu_conditions(device) | {"threads": torch.get_num_threads()}),
        "method": "CUDA events, L2 emptied before each run" if device.type == "cuda" else "wall clock, warm caches",
        "copy_bandwidth_bytes_per_s": copy_bandwidth(device, repetitions) if device.type == "cuda" else None,
    }
    bandwidth = report["copy_bandwidth_bytes_per_s"]
    known = {(one["kernel"], one["shape"]): one for one in read(output).get("results", [])}
    done = {key for key, one in known.items() if args.missing and "failed" not in one}
    with torch.inference_mode():
        for case in cases(FULL if device.type == "cuda" else SMALL, device):
            key = (case.name, case.shape)
            if args.only in case.name and key not in done:
                try:
                    found = measure(case, device, repetitions, bandwidth, compiled=not args.no_compile)
                except Exception as failure:  # whatever the compiler or the driver raises: the row says so
                    found = {"kernel": case.name, "shape": case.shape, "failed": failed(failure)}
                if "failed" not in found or "failed" in known.get(key, {"failed": ""}):
                    known[key] = found
                write(output, report | {"results": list(known.values())})
                print(f"{case.name}: done", file=sys.stderr, flush=True)
    show(report | {"results": list(known.values())}, output)


def measure(
    case: Case, device: torch.device, repetitions: int, bandwidth: float | None, *, compiled: bool
) -> dict[str, Any]:
    """Times of the three ways, or why one has none; and the roofline."""
    moved = case.bytes_moved()

    def timed(function: Callable[..., Any]) -> dict[str, Any]:
        return time_function(lambda: function(*case.arguments), device, repetitions).as_json()

    return {
        "kernel": case.name,
        "shape": case.shape,
        "bytes": moved,
        "roofline_us": 1e6 * moved / bandwidth if bandwidth else NOT_MEASURED,
        "triton": timed(case.launcher) if device.type == "cuda" else NOT_MEASURED,
        "reference": timed(case.reference),
        "compiled reference": timed_compiled(case.reference, timed) if compiled else "not measured (--no-compile)",
    }


def timed_compiled(
    reference: Callable[..., Any], timed: Callable[[Callable[..., Any]], dict[str, Any]]
) -> dict[str, Any] | str:
    """The reference as one graph, shapes fixed; where torch.compile cannot, its complaint."""
    torch.compiler.reset()
    try:
        return timed(torch.compile(reference, fullgraph=True, dynamic=False))
    except Exception as error:  # what it raises is not one family
        return f"not measured ({type(error).__name__}: {str(error).strip().splitlines()[0][:120]})"


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def gpu_conditions(device: torch.device) -> dict[str, Any]:
    """What concerns the kernels alone."""
    return {"device": device_name(device), "cuda": torch.version.cuda}


def show(report: dict[str, Any], output: Path) -> None:
    """Prints the figures as a table."""
    console = Console()
    console.print(report["conditions"])
    bandwidth = report["copy_bandwidth_bytes_per_s"]
    copied = f"; a copy moves {bandwidth / 1e9:.0f} GB/s" if bandwidth else ""
    ways = ("roofline_us", "triton", "reference", "compiled reference")
    title = f"median us (10th to 90th percentile); {report['method']}{copied}"
    table = Table("kernel", "shape", "MB", *ways, title=title)
    for result in report["results"]:
        if "failed" in result:
            table.add_row(result["kernel"], result["shape"], "-", result["failed"])
            continue
        row = (result["kernel"], result["shape"], f"{result['bytes'] / 1e6:.1f}")
        table.add_row(*row, *(cell(result[way]) for way in ways))
    console.print(table)
    console.print(f"written to {output}")


def cell(timing: dict[str, Any] | float | str) -> str:
    """One figure, with its spread if it has one."""
    if isinstance(timing, dict):
        return f"{timing['median_us']:.1f} ({timing['p10_us']:.1f} to {timing['p90_us']:.1f})"
    return f"{timing:.1f}" if isinstance(timing, float) else timing


if __name__ == "__main__":
    main()
