"""The tables of docs/performance.md and README.md, by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ablation_case import COMMON_ROWS, GPU_ROWS
from benchmarks.engine import ROW_NAMES, share_of_roofline
from benchmarks.engine_row import COMPILED, EAGER, OURS
from benchmarks.markdown import measured_on_gpus, milliseconds, read, source, table
from benchmarks.records import NOT_MEASURED, is_measured
from benchmarks.roofline import Machine, cells, dit_chunk_s, floors
from benchmarks.sizes import SIZES

PEERS = (EAGER, COMPILED)
NOTES = """
Steps of the DiT leave out what ours does once and diffusers in each step: the prompt's keys and values (once per
prompt) and the history's tokens (once per chunk). Chunks pay for the history; a prompt's are paid for end to end. Ours
encodes the prompt at its own length, diffusers at 512 tokens. The roofline is the least time for the counted work by
this machine's best matrix product (and on a GPU its copy), over our time.
"""
GPU_NOTES = """
Memory is that of the row's weights, with what ours keeps between calls, and the most that a call takes beside them.
FPS are of one chunk of 33 frames with its prompt, to 8-bit frames in host memory, without H.264. To compare: the
model's authors publish 19.5 FPS on one H100 at 384x640 and [1,1,1] (over a long video; not reproduced here); a player
needs 24.
"""


def ablation_cpu(results: Path) -> str:
    """Each optimisation that has been measured on a CPU."""
    report = read(results, "ablation-cpu")
    assert report is not None
    rows = [(*ablated(one), taken(one)) for one in report["results"] if is_measured(one["worth"])]
    return table((*ABLATION_HEADER, "taken"), rows) + source(report)


ABLATION_HEADER = ("optimisation", "part", "with it, ms", "without, ms", "worth")


def ablated(one: dict[str, Any]) -> tuple[str, ...]:
    """Cells of an optimisation."""
    if not is_measured(one["worth"]):
        return (one["name"], one["part"], "-", "-", one["worth"])
    times = (milliseconds(one[way]) for way in ("with", "without"))
    return (one["name"], one["part"], *times, f"{one['worth']:.2f}")


def tried(value: Any) -> bool:
    """Whether there is a figure, or why there is none: what nobody has measured yet is left out."""
    return is_measured(value) or value != NOT_MEASURED


def taken(one: dict[str, Any]) -> str:
    """Whether the engine has it by default."""
    return {True: "yes", False: "no"}.get(one.get("taken"), "-")  # type: ignore[arg-type]


def ablation_gpu(results: Path) -> str:
    """Each optimisation that has been measured, or has failed, on a GPU."""
    report = read(results, "ablation-gpu-full")
    measured = {one["name"]: one for one in report["results"]} if report else {}
    rows = [measured[name] for name in COMMON_ROWS | GPU_ROWS if name in measured and tried(measured[name]["worth"])]
    written = table((*ABLATION_HEADER, "taken"), [(*ablated(one), taken(one)) for one in rows])
    return written + (source(report) if report else "")


def engine(size: str) -> Callable[[Path], str]:
    """Ours against diffusers."""
    on_gpu = SIZES[size].device == "cuda"
    header = ["part", *(f"{peer}, ms" for peer in (OURS, *PEERS)), *(f"{peer} / ours" for peer in PEERS)]
    header += ["of the roofline", *(["GB: ours, eager, compiled", "FPS: ours, eager, compiled"] if on_gpu else [])]

    def engine_table(results: Path) -> str:
        report = read(results, f"engine-{size}")
        assert report is not None
        named = {name: report["rows"][name] for name in ROW_NAMES if tried(report["rows"].get(name, NOT_MEASURED))}
        rows = [engine_cells(name, row, on_gpu=on_gpu) for name, row in named.items()]
        written = table(header, [(*cells, *["-"] * (len(header) - len(cells))) for cells in rows])
        if not (measured := [row for row in named.values() if is_measured(row)]):
            return written
        written += NOTES + (GPU_NOTES if on_gpu else "")
        # the file's own command is that of the last run, which need not have measured all rows
        commits = ", ".join(sorted({str(row["commit"]) for row in measured}))
        facts = report | {"command": f"python -m benchmarks.engine --size {size}"}
        if on_gpu:
            facts["conditions"] |= {key: ", ".join(sorted({row[key] for row in measured})) for key in ("gpu", "date")}
        return written + ways(report) + source(facts, f", measured at commit {commits}")

    return engine_table


def engine_cells(name: str, row: Any, *, on_gpu: bool) -> tuple[str, ...]:
    """A row; what is missing at its end is not known."""
    if not is_measured(row):
        return (name, str(row))
    if row.get("differs"):
        name += f" (results differ by {row['relative_error']:.1e})"
    if name.startswith("end to end") and "fps" not in row:  # older files
        name += ", diffusers to float32 pictures"
    share = share_of_roofline(row)
    cells = [name, *(milliseconds(row.get(peer)) for peer in (OURS, *PEERS)), *(ratio(row, peer) for peer in PEERS)]
    cells.append(NOT_MEASURED if share is None else f"{share:.0%}")
    if on_gpu:
        memory, fps = row.get("memory", {}), row.get("fps")
        gigabytes = (memory.get(peer, {}) for peer in (OURS, *PEERS))
        cells.append(", ".join(f"{sum(one.values()) / 1e9:.1f}" if one else "-" for one in gigabytes))
        rates = [fps.get(peer) for peer in (OURS, *PEERS)] if fps else []
        cells.append(", ".join("-" if rate is None else f"{rate:.1f}" for rate in rates) or "-")
    return tuple(cells)


def ratio(row: dict[str, Any], peer: str) -> str:
    """Median and extremes; why there is none stands in the column of its times."""
    found = row["ratio"].get(peer)
    return "-" if found is None else f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def ways(report: dict[str, Any]) -> str:
    """How each ran on a GPU."""
    if "diffusers_projections" not in report or not report["conditions"].get("gpu"):
        return ""
    projections, mode = report["diffusers_projections"]["taken"], report["our_modes"]["taken"]
    return (
        f"\nThe fastest of each was taken: for diffusers {report['diffusers_attention']} attention and {projections} "
        f"projections, for ours the mode {mode}.\n"
    )


def roofline(_: Path) -> str:
    """The floor of each part on an H100."""
    found = floors(SIZES["gpu-full"], Machine())
    header = ("part", "TFLOP", "of these attention", "GB moved", "at least, ms", "bound by")
    sums = (f"[{steps},{steps},{steps}] {dit_chunk_s(found, steps):.3g} s a chunk" for steps in (1, 2))
    return table(header, [cells(floor) for floor in found]) + f"\nThe DiT, at least: {', '.join(sums)}.\n"


def precision(results: Path) -> str:
    """What 16 bits in the VAE and 8 bits in the DiT cost and, on a GPU, bring."""
    rows: list[tuple[str, ...]] = []
    sources = ""
    for device, size in (("CPU", "cpu"), ("GPU", "gpu-full")):
        vae, fp8 = read(results, f"vae-precision-{size}"), read(results, f"fp8-{size}")
        if vae is not None:
            for dtype, found in vae["results"]["precision"].items():
                costs = f"PSNR {found['psnr_db']:.1f} dB, at most {found['largest_difference_levels']} levels of 255"
                brings = speed(vae["results"]["seconds"], "float32", dtype, device)
                rows.append((f"VAE in {dtype} instead of float32", device, costs, brings))
            sources += source(vae)
        name, costs, brings = "8-bit linear layers", NOT_MEASURED, NOT_MEASURED
        if fp8 is not None:
            errors = fp8["results"]["latent_error_by_chunk"]
            name += f" instead of {fp8['plain_dtype']}"
            listed = ", ".join(f"{error:.1%}" for error in errors)
            costs = f"latents differ by {listed} in chunks 0 to {len(errors) - 1}"
            brings = speed(fp8["results"]["seconds"], "plain", "fp8", device)
            sources += source(fp8)
            rows.append((name, device, costs, brings))
    return table(("option", "on a", "costs", "brings"), rows) + sources


def speed(seconds: dict[str, Any], plain: str, option: str, device: str) -> str:
    """How much faster a chunk is with the option, in words. A dash for a CPU, which only emulates it."""
    if device == "CPU":
        return "-"
    if not is_measured(seconds.get(option)):
        return NOT_MEASURED
    before, after = seconds[plain]["median"], seconds[option]["median"]
    return f"{before * 1e3:.4g} ms to {after * 1e3:.4g} ms a chunk: {before / after:.2f}x"


def bf16(results: Path) -> str:
    """Errors of ours and of diffusers in bfloat16."""
    rows: list[tuple[str, ...]] = []
    sources = ""
    for device, size in (("CPU", "cpu"), ("GPU", "gpu-full")):
        report = read(results, f"bf16-{size}")
        if report is None:
            continue
        for stage, errors in report["results"].items():
            rows.append((f"{stage}, {device}", *(f"{errors[peer]:.3%}" for peer in ("ours", "diffusers"))))
        sources += source(report, f", {report['layers']} layers")
    return table(("", "ours", "diffusers"), rows) + sources


def kernels_gpu(results: Path) -> str:
    """Each kernel on a GPU."""
    report = read(results, "kernels-gpu-full")
    header = ("kernel", "shape", "us", "of the roofline", "reference / kernel", "compiled reference / kernel")
    if report is None:
        return ""
    rows = []
    for one in report["results"]:
        if "failed" in one:
            rows.append((one["kernel"], one["shape"], one["failed"], "-", "-", "-"))
            continue
        took = one["triton"]["median_us"]
        others = (one[way] for way in ("reference", "compiled reference"))
        ratios = (f"{other['median_us'] / took:.2f}" if is_measured(other) else str(other) for other in others)
        rows.append((one["kernel"], one["shape"], f"{took:.1f}", f"{one['roofline_us'] / took:.0%}", *ratios))
    return (
        "\nEach kernel at full size. Its roofline: moving arguments and results once, at a copy's rate.\n"
        + table(header, rows)
        + source(report)
    )


def gpu_measured(results: Path) -> str:
    """Which of this page's figures are of a GPU."""
    found = measured_on_gpus(results)
    if not found:
        return (
            "Everything that is measured here was measured on a CPU. **No figure of a GPU has been measured**, so\n"
            "there are no tables for GPUs yet. The roofline is arithmetic from counts.\n"
        )
    return (
        f"The tables for GPUs were measured on: {_gpus(found)}, with random weights in the published sizes\n"
        f"({', '.join(found)}). What has not been measured is not in them. The roofline is arithmetic from counts.\n"
    )


def _gpus(found: dict[str, set[str]]) -> str:
    return ", ".join(sorted({gpu for names in found.values() for gpu in names}))


def gpu_limits(results: Path) -> str:
    """What the README says of GPUs."""
    found = measured_on_gpus(results)
    if not found:
        return (
            "- No figure here was measured on a GPU. The service uses the GPUs that it finds, but\n"
            "  neither speed, bf16 parity nor memory has been measured on one.\n"
        )
    return (
        f"- On a GPU ({_gpus(found)}) the engine alone was measured, with random weights in the published sizes\n"
        "  ([figures](docs/performance.md)); the service was not.\n"
    )


TABLES: dict[str, Callable[[Path], str]] = {
    "gpu-measured": gpu_measured,
    "gpu-limits": gpu_limits,
    "ablation-cpu": ablation_cpu,
    "ablation-gpu": ablation_gpu,
    "engine-cpu": engine("cpu"),
    "engine-gpu-full": engine("gpu-full"),
    "kernels-gpu": kernels_gpu,
    "roofline": roofline,
    "precision": precision,
    "bf16": bf16,
}
