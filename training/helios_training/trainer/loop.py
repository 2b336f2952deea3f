"""The training loop. Everything drawn is a function of the seed and the step, so that a run goes on where it was cut.

for each step, for each part whose turn it is:
    g = mean over the batch of d loss / d weights     (in micro batches, over processes)
    AdamW with g clipped; average <- decay average + (1 - decay) weights
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from helios_training.errors import TrainingError
from helios_training.snapshot import read_snapshot, write_snapshot
from helios_training.trainer.batches import length, narrow, to_device
from helios_training.trainer.group import Group
from helios_training.trainer.parts import Part
from helios_training.trainer.progress import Progress


class Task(Protocol):
    """What is trained."""

    @property
    def parts(self) -> Sequence[Part]:
        """What takes steps, in this order."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a snapshot must agree with to be gone on from, as the stage and the seed."""

    def batch(self, part: str, step: int) -> Any:
        """The batch of a part's step, a dataclass of tensors: the same for the same arguments, whoever asks."""

    def sample(self, folder: Path, step: int) -> None:
        """Writes what the weights now make."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """folder: of the snapshot, log and metrics. steps: of the whole run, over all its starts.

    minutes: stop after so many of this start (None: go on to the last step). micro_batches: a batch is accumulated in
    so many. autocast: of the forward passes (None: the weights' own dtype).
    """

    folder: Path
    steps: int
    minutes: float | None = None
    micro_batches: int = 1
    autocast: torch.dtype | None = None
    save_every_s: float = 120.0
    sample_every_s: float | None = None
    report_every: int = 25
    device: str = "cpu"
    quiet: bool = False

    @property
    def snapshot(self) -> Path:
        """What the run goes on from."""
        return self.folder / "run.safetensors"


def train(task: Task, settings: RunSettings) -> int:
    """Trains from the folder's snapshot, or from the beginning without one. Returns the steps that are done.

    Raises TrainingError for a snapshot of another run, for gradients that are not finite, and for a disk that is full;
    what the last snapshot holds is never lost.
    """
    group = Group.current()
    step = resume(task, settings.snapshot)
    settings.folder.mkdir(parents=True, exist_ok=True)
    objectives = {part.name: group.wrap(part.objective) for part in task.parts}
    progress = None
    if group.leads:
        progress = Progress(
            settings.folder, total_steps=settings.steps, report_every=settings.report_every, quiet=settings.quiet
        )
    started = saved = sampled = time.monotonic()
    try:
        while step < settings.steps and not _is_over(started, settings.minutes, group):
            metrics: dict[str, float] = {}
            samples = 0
            for part in task.parts:
                if step % part.recipe.every == 0:
                    found, samples = _part_step(task, part, objectives[part.name], step, settings, group)
                    metrics |= found
            step += 1
            now = time.monotonic()
            if progress is not None:
                progress.add(step, metrics, samples)
                if now - saved > settings.save_every_s:
                    save(task, settings.snapshot, step)
                    saved = now
                if settings.sample_every_s is not None and now - sampled > settings.sample_every_s:
                    task.sample(settings.folder / "samples", step)
                    sampled = now
    finally:
        if progress is not None:
            progress.close()
    if group.leads:
        save(task, settings.snapshot, step)
    return step


def _part_step(
    task: Task, part: Part, objective: nn.Module, step: int, settings: RunSettings, group: Group
) -> tuple[dict[str, float], int]:
    batch = task.batch(part.name, step)
    samples, shares = length(batch), group.size * settings.micro_batches
    if samples % shares:
        raise TrainingError(f"batch: {samples} samples are not allowed; allowed: a multiple of {shares}, its parts")
    each = samples // shares
    sums: dict[str, float] = {}
    for micro in range(settings.micro_batches):
        start = (group.rank * settings.micro_batches + micro) * each
        share = to_device(narrow(batch, start, each), torch.device(settings.device))
        with _synchronised(objective, last=micro == settings.micro_batches - 1), _autocast(settings):
            loss, metrics = objective(share)
            (loss / settings.micro_batches).backward()
        for name, value in {"loss": loss.detach(), **metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(value) / settings.micro_batches
    sums = group.mean(sums)
    sums["gradient"] = part.update(step, settings.steps)
    prefix = f"{part.name}." if len(task.parts) > 1 else ""
    return {f"{prefix}{name}": value for name, value in sums.items()}, samples


def _synchronised(objective: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[Any]:
    """Gradients are averaged over processes once, behind the last micro batch."""
    if last or not isinstance(objective, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return objective.no_sync()


def _autocast(settings: RunSettings) -> contextlib.AbstractContextManager[Any]:
    if settings.autocast is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(settings.device).type, settings.autocast)


def _is_over(started: float, minutes: float | None, group: Group) -> bool:
    """The same on every process: the first to reach the time takes the others along."""
    if minutes is None:
        return False
    return group.mean({"over": float(time.monotonic() - started > 60.0 * minutes)})["over"] > 0.0


def save(task: Task, file: Path, step: int) -> None:
    """Writes everything that the run goes on from."""
    tensors = {name: tensor for part in task.parts for name, tensor in part.tensors()}
    updates = {part.name: part.updates for part in task.parts}
    write_snapshot(file, tensors, {**task.facts, "step": step, "updates": updates})


def resume(task: Task, file: Path) -> int:
    """Restores a snapshot if there is one; returns the steps that are done."""
    if not file.exists():
        return 0
    tensors, facts = read_snapshot(file)
    for name, value in task.facts.items():
        if facts.get(name) != value:
            raise TrainingError(f"{file}: {name}: {facts.get(name)!r} is not allowed; allowed: {value!r}, this run's")
    step = int(facts["step"])
    for part in task.parts:
        part.restore(tensors, facts["updates"][part.name], step)
    return step
