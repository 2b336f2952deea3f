"""`make mini`: from nothing to the small Distilled, every stage in turn. What is done already is not done again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from helios_training.data.encode import encode_world, load_encoder
from helios_training.export import export_model, export_vae
from helios_training.small.sizes import HEIGHT, WIDTH
from helios_training.stages.path_files import make_paths
from helios_training.tasks.base import BaseTask
from helios_training.tasks.distill import DistillTask, ODETask
from helios_training.tasks.mid import MidTask
from helios_training.tasks.vae import VAETask
from helios_training.trainer import RunSettings, train
from helios_training.trainer.loop import Task

SECTIONS = 3


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Steps of each stage, clips that are encoded, videos of the teacher. The defaults take days on two cores."""

    vae_frames: int = 2500
    vae_decoder: int = 2000
    clips: int = 2000
    base: int = 20_000
    mid: int = 20_000
    videos: int = 200
    ode: int = 3000
    distill: int = 5000


SHARES = {"vae-frames": 0.15, "vae-decoder": 0.1, "base": 0.35, "mid": 0.2, "ode": 0.1, "distill": 0.1}
"""How given minutes are shared out. They are minutes of training; encoding comes besides."""


@dataclass(frozen=True, kw_only=True)
class Mini:
    """root: runs, latents and checkpoints of the stages; `root/distilled` is the result. minutes: of all training."""

    root: Path
    sizes: Sizes
    device: str = "cpu"
    minutes: float | None = None
    say: Callable[[str], None] = print

    def make(self) -> Path:
        """The folder of the finished checkpoint."""
        root, sizes, device = self.root, self.sizes, self.device
        frames = self._train("vae-frames", VAETask("frames", device=device), sizes.vae_frames)
        export_vae(frames, root / "vae")
        decoder = self._train("vae-decoder", VAETask("decoder", start=frames, device=device), sizes.vae_decoder)
        export_vae(decoder, root / "vae")
        encoder = load_encoder(root / "vae").to(device)
        written = encode_world(
            encoder, root / "latents", range(sizes.clips), sections=SECTIONS, height=HEIGHT, width=WIDTH
        )
        self.say(f"{sum(1 for _ in written)} clips encoded")
        base = self._train("base", BaseTask(root / "latents", device=device), sizes.base)
        export_model(base, "base", root / "base", "base", root / "vae")
        mid = self._train("mid", MidTask(root / "base", root / "latents", device=device), sizes.mid)
        export_model(mid, "mid", root / "mid", "mid", root / "base")
        made = make_paths(root / "mid", root / "paths", videos=sizes.videos)
        self.say(f"{sum(1 for _ in made)} of the teacher's videos made")
        ode = self._train("ode", ODETask(root / "mid", root / "paths", device=device), sizes.ode)
        export_model(ode, "ode", root / "start", "mid", root / "mid")
        task = DistillTask(root / "base", root / "start", root / "latents", total_steps=sizes.distill, device=device)
        distilled = self._train("distill", task, sizes.distill)
        export_model(distilled, "student", root / "distilled", "distilled", root / "start")
        return root / "distilled"

    def _train(self, name: str, task: Task, steps: int) -> Path:
        settings = RunSettings(
            folder=self.root / "runs" / name,
            steps=steps,
            minutes=None if self.minutes is None else SHARES[name] * self.minutes,
            device=self.device,
            autocast=torch.bfloat16 if self.device.startswith("cuda") else None,
        )
        self.say(f"{name}: {train(task, settings)} of {steps} steps")
        return settings.snapshot
