"""Writes the tables of docs/performance.md and README.md from the results: `python -m benchmarks.performance_page`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. A test holds both pages to the results' files.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ablation_gpu import GPU_ROWS
from benchmarks.engine import NOT_MEASURED, ROW_NAMES
from benchmarks.roofline import Machine, cells, dit_chunk_s, floors
from benchmarks.sizes import SIZES

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "performance.md", ROOT / "README.md")
RESULTS = ROOT / "benchmarks" / "results"
TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PEERS = ("diffusers eager", "diffusers compiled")


def main() -> None:
    """Writes the pages."""
    for page in PAGES:
        page.write_text(updated(page.read_text(), RESULTS))
        print(f"written to {page}")


def updated(page: str, results: Path) -> str:
    """The page with its tables as the results say. Raises KeyError for a table that is not known."""
    return TABLE.sub(lambda found: found[1] + TABLES[found[2]](results) + found[3], page)


def ablation_cpu(results: Path) -> str:
    """Each optimisation that has been measured on a CPU."""
    report = read(results, "ablation-cpu")
    assert report is not None
    rows = []
    for one in report["results"]:
        if not isinstance(one["worth"], str):
            times = [f"{one[way]['median'] * 1e3:.4g}" for way in ("with", "without")]
            taken = "yes" if one["taken"] else "no"
            rows.append((one["name"], one["part"], *times, f"{one['worth']:.2f}", taken))
    header = ("optimisation", "part", "with it, ms", "without, ms", "worth", "taken")
    return table(header, rows) + source(report)


def ablation_gpu(results: Path) -> str:
    """Each optimisation for GPUs, measured or not."""
    report = read(results, "ablation-gpu-full")
    measured = {one["name"]: one for one in report["results"]} if report else {}
    rows = []
    for name, part in GPU_ROWS.items():
        worth = measured.get(name, {}).get("worth", NOT_MEASURED)
        rows.append((name, part, worth if isinstance(worth, str) else f"{worth:.2f}"))
    return table(("optimisation", "part", "worth"), rows) + (source(report) if report else "")


def engine(size: str) -> Callable[[Path], str]:
    """Ours against diffusers."""

    def engine_table(results: Path) -> str:
        report = read(results, f"engine-{size}")
        assert report is not None
        rows: list[tuple[str, ...]] = []
        commits = set()
        for name in ROW_NAMES:
            row = report["rows"].get(name, NOT_MEASURED)
            if isinstance(row, str):
                rows.append((name, row, "-", "-"))
                continue
            commits.add(row["commit"])
            rows.append((name, f"{row['ours']['median'] * 1e3:.4g}", *(ratio(row, peer) for peer in PEERS)))
        written = table(("part", "ours, ms", *(f"{peer} / ours" for peer in PEERS)), rows)
        if not commits:
            return written
        # the file's own command is that of the last run, which need not have measured all rows
        command = f"python -m benchmarks.engine --size {size}"
        return written + source(report | {"command": command}, f", measured at commit {', '.join(sorted(commits))}")

    return engine_table


def ratio(row: dict[str, Any], peer: str) -> str:
    """Median and extremes, or why there is none."""
    found = row["ratio"].get(peer)
    if found is None:
        return str(row.get(peer, NOT_MEASURED))
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def roofline(_: Path) -> str:
    """The floor of each part on an H100."""
    found = floors(SIZES["gpu-full"], Machine())
    header = ("part", "TFLOP", "of these attention", "GB moved", "at least, ms", "bound by")
    sums = (f"[{steps},{steps},{steps}] {dit_chunk_s(found, steps):.3g} s a chunk" for steps in (1, 2))
    return table(header, [cells(floor) for floor in found]) + f"\nThe DiT, at least: {', '.join(sums)}.\n"


def precision(results: Path) -> str:
    """What bfloat16 and 8 bits cost."""
    vae, fp8 = read(results, "vae-precision-cpu"), read(results, "fp8-cpu")
    assert vae is not None
    assert fp8 is not None
    decoded, errors = vae["results"], fp8["results"]["latent_error_by_chunk"]
    rows = [
        (
            "VAE in bfloat16 instead of float32",
            f"PSNR {decoded['psnr_db']:.1f} dB, at most {decoded['largest_difference_levels']} levels of 255",
        ),
        (
            f"8-bit linear layers instead of {fp8['plain_dtype']}",
            "latents differ by " + ", ".join(f"{error:.1%}" for error in errors) + f" in chunks 0 to {len(errors) - 1}",
        ),
    ]
    return table(("option", "costs"), rows) + source(vae) + source(fp8)


def read(results: Path, name: str) -> dict[str, Any] | None:
    """A result, if there is one."""
    file = results / f"{name}.json"
    report: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
    return report


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def source(report: dict[str, Any], more: str = "") -> str:
    """Under which conditions it was measured."""
    where = report["conditions"]
    machine = where.get("gpu") or f"{where['cpu']}, {where['threads']} thread"
    return f"\n`{report['command']}`, {machine}, {where['clock']}, torch {where['torch']}, {where['date']}{more}\n"


TABLES: dict[str, Callable[[Path], str]] = {
    "ablation-cpu": ablation_cpu,
    "ablation-gpu": ablation_gpu,
    "engine-cpu": engine("cpu"),
    "engine-gpu-full": engine("gpu-full"),
    "roofline": roofline,
    "precision": precision,
}


if __name__ == "__main__":
    main()
