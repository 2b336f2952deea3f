"""A plan for people: a table of what runs where, and the settings that give the same."""

from collections.abc import Iterator, Mapping

import yaml
from rich.console import Console
from rich.table import Table

from helios_engine.planning.machine import GB, LEAST_CAPABILITY
from helios_services.config import DenoiserConfig, DeploymentConfig, ServiceConfig
from helios_services.planning.plan import PARTS, Plan

SECTIONS = ("model", *PARTS, "dispatcher")


def print_plan(plan: Plan, console: Console) -> None:
    """The table, and below it what else there is to know."""
    table = Table("part", "replicas", "runs on", "holds", "why", title=f"Plan for {plan.machine}")
    for section in PARTS:
        table.add_row(*row(plan, section))
    console.print(table)
    for note in notes(plan):
        console.print(note, highlight=False)


def row(plan: Plan, section: str) -> tuple[str, ...]:
    """What the table says of one part: its name, replicas, place, what it holds, and why."""
    options: DeploymentConfig = getattr(plan.config, section)
    return (
        section.replace("_", " "),
        _replicas(options),
        _place(options),
        _sum(plan.parts[section]),
        " ".join(_reasons(plan, section)),
    )


def as_yaml(plan: Plan) -> str:
    """The sections that a plan fills in, with all that is set in them."""
    tree = plan.config.model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump({name: tree[name] for name in SECTIONS if name in tree}, sort_keys=False)


def notes(plan: Plan) -> Iterator[str]:
    """What the table has no column for."""
    height, width = plan.size
    yield f"Counted for videos of {height}x{width} in {plan.config.model.dtype}; a tenth of each memory is left free."
    gpus = plan.machine.gpus
    if any(gpu.capability < LEAST_CAPABILITY for gpu in gpus):
        least = ".".join(map(str, LEAST_CAPABILITY))
        yield f"No GPU is used: one has a compute capability below {least}. CUDA_VISIBLE_DEVICES can leave it out."
    elif len({gpu.memory_bytes for gpu in gpus}) > 1:
        yield "The GPUs differ: all are planned for as if they had the memory of the smallest."
    if not plan.largest:
        most = plan.config.model.max_pixels
        yield f"Jobs may ask for {most:,} pixels (model.max_pixels), for which there may be no room."
    if plan.waiting_bytes:
        yield f"Each denoiser keeps {_gb(plan.waiting_bytes)} of weights in host memory besides."


def _replicas(options: DeploymentConfig) -> str:
    scaling = options.autoscaling
    number = f"{scaling.least}" if scaling.fixed else f"{scaling.least} to {scaling.most}"
    ranks = options.parallel.world_size if isinstance(options, DenoiserConfig) else 1
    return f"{number} x {ranks} ranks" if ranks > 1 else number


def _place(options: DeploymentConfig) -> str:
    if options.runs_on == "cpu":
        return "CPU"
    return "a GPU" if options.gpu_share == 1 else f"{options.gpu_share:g} of a GPU"


def _sum(part: Mapping[str, int]) -> str:
    """The largest three by name, for a small model in MB."""
    unit, name = (GB, "GB") if sum(part.values()) >= GB else (10**6, "MB")
    shown = [f"{size / unit:.1f} {purpose}" for purpose, size in part.items() if size >= unit / 20]
    return f"{sum(part.values()) / unit:.1f} {name}: {', '.join(shown)}"


def _reasons(plan: Plan, section: str) -> Iterator[str]:
    config, needs = plan.config, plan.needs
    on_gpu = getattr(config, section).runs_on == "cuda"
    there = bool(plan.machine.gpus)
    if section == "text_encoder":
        yield "Fits beside the rest." if on_gpu else _cpu(there, "Seconds for each new prompt.")
    elif section == "denoiser":
        yield from _denoiser_reasons(config, plan, there, on_gpu)
    else:
        budget = config.decoder.activation_gb
        whole = budget is None or budget * GB >= needs.vae_whole(config.decoder.decodes_in)
        yield "A chunk is decoded whole." if whole else f"A chunk is decoded a few frames at a time, in {budget:g} GB."
        if config.decoder.decodes_in != "float32":
            yield f"In {config.decoder.decodes_in}: float32 does not fit."
        if not on_gpu:
            yield _cpu(there, "Minutes for each chunk of a large video.")


def _denoiser_reasons(config: ServiceConfig, plan: Plan, there: bool, on_gpu: bool) -> Iterator[str]:
    budget = config.denoiser.offload_gb
    if not on_gpu:
        yield _cpu(there, "")
    elif budget is None:
        yield "All weights are on the GPU."
    else:
        blocks = plan.needs.block_bytes(config.dtype)
        stay = sum(sum(blocks[: count + 1]) <= budget * GB for count in range(len(blocks)))
        yield f"Room for {stay} of {len(blocks)} blocks; the others are copied from host memory in each step."
    if on_gpu and len(plan.machine.gpus) > 1 and config.denoiser.parallel.world_size == 1:
        yield "Each replica makes chunks of its own."
        if plan.machine.nvlink:
            yield "Over NVLink several could share a chunk (denoiser.parallel)."


def _cpu(there: bool, cost: str) -> str:
    return f"{'Does not fit on a GPU, or is asked for.' if there else 'There is no GPU.'} {cost}".strip()


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"
