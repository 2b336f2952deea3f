"""What a person sees while chunks arrive, and the summary at the end."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from helios.v1 import video_generation_pb2 as pb

STAGES = ("queue", "text", "denoise", "decode", "encode")


class ChunkProgress:
    """A progress bar over chunks, and the figures of the run so far. Times are this process's own."""

    def __init__(self, console: Console, bar: Progress, chunks: int) -> None:
        self._console, self._bar = console, bar
        self._task = bar.add_task("generating", total=chunks, note="waiting for the first chunk")
        self._start = self._last = time.perf_counter()
        self._frames = 0
        self._first_s = self._play_s = 0.0
        self._stages: dict[str, list[float]] = {stage: [] for stage in STAGES}

    def chunk(self, *, num_frames: int, duration_s: float, stage_s: Mapping[str, float]) -> None:
        """A chunk has arrived."""
        now = time.perf_counter()
        interval, self._last = now - self._last, now
        if not self._frames:
            self._first_s = now - self._start
        self._frames += num_frames
        self._play_s += duration_s
        for stage, seconds in stage_s.items():
            self._stages[stage].append(seconds)
        note = "  ".join(f"{stage} {seconds:.2f}s" for stage, seconds in stage_s.items() if seconds >= 0.005)
        self._bar.update(self._task, advance=1, note=f"{num_frames / interval:.1f} FPS  {note}")

    def summary(self) -> None:
        """Prints time to first chunk, FPS and the stage table."""
        total = self._last - self._start
        self._console.print(
            f"time to first chunk {self._first_s:.2f} s   {self._frames} frames in {total:.2f} s   "
            f"{self._frames / total:.2f} FPS   real-time factor {self._play_s / total:.2f}",
            highlight=False,
        )
        table = Table("stage", "chunks", "mean s", "max s", title="time per stage")
        for stage, seconds in self._stages.items():
            if seconds:
                mean = sum(seconds) / len(seconds)
                table.add_row(stage, str(len(seconds)), f"{mean:.3f}", f"{max(seconds):.3f}")
        self._console.print(table)


@contextmanager
def chunk_progress(chunks: int) -> Iterator[ChunkProgress]:
    """Shows progress on standard error while it is open; the summary is for standard output."""
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        yield ChunkProgress(Console(), bar, chunks)


def stages_of(info: pb.ChunkInfo) -> dict[str, float]:
    """Seconds by stage that a chunk reports."""
    return {field.name: duration.ToMicroseconds() / 1e6 for field, duration in info.stages.ListFields()}
