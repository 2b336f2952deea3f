"""What the queue and the gateway bear: `python -m benchmarks.load_test`.

Real gateway processes and a real redis-server (append-only file) under load from a client process. Instead of a model
there is a stand-in worker with a fixed-time stage, so that nothing but the queue and the gateway is measured. All of
them share this machine's cores: the client's and the worker's part is printed beside each figure.
"""

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.conditions import head
from benchmarks.load_model.processes import CHANNELS, Processes
from benchmarks.load_model.streams import fan_out, idle_streams
from benchmarks.load_model.unary import at_rate, submissions

RESULT = Path(__file__).parent / "results" / "load-test-cpu.json"
CONCURRENCIES = (1, 4, 16, 64, 256)
READERS = (100, 300, 1000)
CHUNK_S = 1.375
"""33 frames at 24 frames a second: chunks come as fast as they play."""
LATE = 2.5
"""Times the duration of a video that readers of it are waited for."""
WORKER = "stand-in: a fixed-time stage that appends random bytes; no model, no encoder"


def main() -> None:
    """Measures, prints tables, writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_test", description=__doc__.splitlines()[0])
    parser.add_argument("--gateways", type=int, default=1, help="gateway processes")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each rate measured")
    parser.add_argument("--rate", type=float, default=200.0, help="of unary calls, a second")
    parser.add_argument("--chunks", type=int, default=6, help="of each job that is read")
    parser.add_argument("--fragment-bytes", type=int, default=128 * 1024, help="of a chunk")
    parser.add_argument("--only", choices=("submit", "unary", "streams", "idle"), nargs="+", help="parts to measure")
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    load_before = os.getloadavg()
    parts = args.only or ("submit", "unary", "streams", "idle")
    results: dict[str, Any] = {}
    if "idle" in parts:  # each in new processes: memory that others have left behind would hide some
        results["idle"] = [with_processes(args, idle_streams, method, 1000) for method in ("WatchJob", "StreamVideo")]
    results |= with_processes(args, measure, args, parts)
    more = {
        "load average before": load_before,
        "processes": f"{args.gateways} gateway, 1 redis-server (appendonly, always), 1 client: on the same cores",
        "connections": CHANNELS,
        "worker": WORKER,
        "chunk_s": CHUNK_S,
        "fragment_bytes": args.fragment_bytes,
    }
    report = {
        **head("load_test", more),
        "results": results,
    }
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    show(report, args.output)


def with_processes(args: argparse.Namespace, part: Callable[..., Coroutine[Any, Any, Any]], *values: Any) -> Any:
    """Runs a part with processes of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="helios-load-") as folder,
        Processes(Path(folder), gateways=args.gateways) as processes,
    ):
        return asyncio.run(part(processes, *values))


async def measure(processes: Processes, args: argparse.Namespace, parts: Sequence[str]) -> dict[str, Any]:
    """The other parts, each on an empty store."""
    results: dict[str, Any] = {}

    def empty() -> None:
        with Redis.from_url(processes.config.redis.url) as client:
            client.flushall()

    if "submit" in parts:
        results["submit"] = []
        for concurrency in CONCURRENCIES:
            results["submit"].append(await submissions(processes, concurrency, args.seconds))
            empty()
    if "unary" in parts:
        results["unary"] = await at_rate(processes, args.rate, args.seconds)
        empty()
    if "streams" in parts:
        results["streams"] = []
        for readers in READERS:
            for jobs in (1, readers):
                processes.worker(chunk_s=CHUNK_S, fragment_bytes=args.fragment_bytes)
                results["streams"].append(
                    await fan_out(processes, readers, jobs, args.chunks, LATE * CHUNK_S * args.chunks)
                )
                processes.end_worker()
                empty()
    return results


def show(report: dict[str, Any], output: Path) -> None:
    """Prints the figures as tables."""
    console, results = Console(), report["results"]
    console.print(report["conditions"])
    tables = []
    if "submit" in results:
        table = Table("callers", "submits/s", "p50 ms", "p99 ms", "cores used", title="SubmitJob, as fast as it goes")
        for row in results["submit"]:
            table.add_row(str(row["concurrency"]), f"{row['per_s']:.0f}", *_times(row), _cores(row))
        tables.append(table)
    if "unary" in results:
        table = Table("call", "calls/s", "p50 ms", "p99 ms", title="each call at a fixed rate")
        for name, row in results["unary"].items():
            table.add_row(name, f"{row['rate']:.0f}", *_times(row))
        tables.append(table)
    if "streams" in results:
        table = Table(
            "readers",
            "jobs",
            "chunks/s",
            "MB/s",
            "p50 ms",
            "p99 ms",
            "resumed",
            "late",
            "cores used",
            title="chunk to reader",
        )
        for row in results["streams"]:
            rates = f"{row['chunks_per_s']:.0f}", f"{row['bytes_per_s'] / 1e6:.1f}"
            table.add_row(
                str(row["readers"]),
                str(row["jobs"]),
                *rates,
                *_times(row),
                str(row["resumed"]),
                str(row["late"]),
                _cores(row),
            )
        tables.append(table)
    if "idle" in results:
        table = Table("call", "streams", "gateway MB before, with", "KB a stream", "cores used", title="idle streams")
        for row in results["idle"]:
            memory = f"{row['gateway_bytes_before'] / 1e6:.1f}, {row['gateway_bytes_with'] / 1e6:.1f}"
            kilobytes = f"{row['bytes_per_stream'] / 1e3:.1f}"
            table.add_row(row["method"], str(row["streams"]), memory, kilobytes, _cores(row))
        tables.append(table)
    for table in tables:
        console.print(table)
    console.print(f"written to {output}")


def _times(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}"


def _cores(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {share:.2f}" for name, share in row["cores"].items())


if __name__ == "__main__":
    main()
