"""What a run shows of itself: a bar with loss, speed and time left, a line now and then, TensorBoard's files."""

import sys
import time
from collections import defaultdict
from pathlib import Path


class Progress:
    """Means of the metrics between two reports."""

    def __init__(self, folder: Path, *, total_steps: int, report_every: int, quiet: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "metrics"))
        self._log = (folder / "train.log").open("a")
        self._total, self._every, self._quiet = total_steps, report_every, quiet
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._since, self._samples, self._steps = time.monotonic(), 0, 0

    def add(self, step: int, metrics: dict[str, float], samples: int) -> None:
        """step: how many are done."""
        for name, value in metrics.items():
            self._sums[name].append(value)
        self._samples += samples
        self._steps += 1
        if step % self._every == 0 or step == self._total:
            self._report(step)

    def _report(self, step: int) -> None:
        seconds = max(time.monotonic() - self._since, 1e-9)
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        rate = self._samples / seconds
        left_s = (self._total - step) * seconds / self._steps
        for name, value in means.items():
            self._writer.add_scalar(name, value, step)
        self._writer.add_scalar("samples_per_second", rate, step)
        self._writer.flush()
        shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        line = f"{step}/{self._total}  {shown}  {rate:.1f} samples/s  {_clock(left_s)} left"
        self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}  {line}\n")
        self._log.flush()
        if not self._quiet:
            bar = "█" * round(20 * step / self._total)
            end = "\n" if not sys.stderr.isatty() or step == self._total else "\r"
            sys.stderr.write(f"{bar:<20} {line}\x1b[K{end}" if sys.stderr.isatty() else f"{line}\n")
            sys.stderr.flush()
        self._sums.clear()
        self._since, self._samples, self._steps = time.monotonic(), 0, 0

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
        self._log.close()


def _clock(seconds: float) -> str:
    minutes, hours = int(seconds / 60) % 60, int(seconds / 3600)
    return f"{hours}:{minutes:02}:{int(seconds) % 60:02}"
