"""The tables of docs/load.md, by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.markdown import read, table

ONE, TWO = "load-test-cpu", "load-test-2-gateways-cpu"


def load_submit(results: Path) -> str:
    """Submissions as fast as they go, with one gateway and with two."""
    reports = [_report(results, name) for name in (ONE, TWO)]
    header = ["SubmitJob, callers"]
    for gateways in ("one gateway", "two gateways"):
        header += [f"{gateways}: submits/s", "p50 / p99, ms", "gateways' cores, all cores"]
    both = zip(*(report["results"]["submit"] for report in reports), strict=True)
    rows = [[str(one["concurrency"]), *_submissions(one), *_submissions(two)] for one, two in both]
    return table(header, rows) + "".join(map(_source, reports))


def _submissions(row: dict[str, Any]) -> tuple[str, ...]:
    return (f"{row['per_s']:.0f}", _times(row), _cores(row))


def load_unary(results: Path) -> str:
    """Each call at a fixed rate."""
    report = _report(results, ONE)
    rows = [(name, f"{row['rate']:.0f}", _times(row)) for name, row in report["results"]["unary"].items()]
    return table(("call, at a fixed rate", "calls/s", "p50 / p99, ms"), rows) + _source(report)


def load_streams(results: Path) -> str:
    """Chunks to many readers."""
    report = _report(results, ONE)
    rows = [
        (
            f"{row['readers']} of {row['jobs']}",
            f"{row['chunks_per_s']:.0f}, {row['bytes_per_s'] / 1e6:.0f}",
            _times(row),
            f"{row['late']}, {row['resumed']}",
            _cores(row),
        )
        for row in report["results"]["streams"]
    ]
    header = (
        "readers of jobs",
        "chunks/s, MB/s",
        "chunk to reader, p50 / p99 ms",
        "late, resumed",
        "gateway's cores, all",
    )
    return table(header, rows) + _source(report)


def load_idle(results: Path) -> str:
    """What a stream costs that waits."""
    report = _report(results, ONE)
    rows = [
        (
            f"{row['streams']} of {row['method']}",
            f"{row['gateway_bytes_before'] / 1e6:.0f}, {row['gateway_bytes_with'] / 1e6:.0f}",
            f"{row['bytes_per_stream'] / 1e3:.0f}",
            f"{row['cores']['gateway']:.2f}",
        )
        for row in report["results"]["idle"]
    ]
    return table(("idle streams", "gateway MB without, with", "KB a stream", "gateway's cores"), rows) + _source(report)


def _report(results: Path, name: str) -> dict[str, Any]:
    report = read(results, name)
    assert report is not None, f"{name}.json is missing"
    return report


def _times(row: dict[str, Any]) -> str:
    return f"{row['p50_ms']:.1f} / {row['p99_ms']:.1f}"


def _cores(row: dict[str, Any]) -> str:
    """The gateways' and all processes'."""
    return f"{row['cores']['gateway']:.2f}, {sum(row['cores'].values()):.2f}"


def _source(report: dict[str, Any]) -> str:
    where = report["conditions"]
    versions = ", ".join(f"{name} {where[name]}" for name in ("grpcio", "redis", "python"))
    return (
        f"\n`{report['command']}`, {where['cpu']}, {where['cores']} cores, {versions}, {where['date']}, "
        f"commit {where['commit']}, load average {where['load average before'][0]:.1f} before\n"
    )


LOAD_TABLES: dict[str, Callable[[Path], str]] = {
    "load-submit": load_submit,
    "load-unary": load_unary,
    "load-streams": load_streams,
    "load-idle": load_idle,
}
