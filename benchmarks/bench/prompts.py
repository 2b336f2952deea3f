"""What is generated: prompts with durations, of the small world or of a CSV in the reference's columns."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helios_training.world import Scene, held_out_scenes

DURATIONS = (81, 240, 720, 1440)
"""Frames. The reference's CSV has 120 in place of 81: its short videos are cut out of those."""
CUT_FROM = {81: 120}
COLUMNS = ("id", "prompt", "duration")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One video to make. target: frames as the CSV names them. frames: how many the video has in the end.

    scene: what the small world's captions say; None for any other text.
    """

    id: int
    text: str
    target: int
    frames: int
    scene: Scene | None = None

    @property
    def stem(self) -> str:
        """The video's name as the reference's scripts look for it."""
        return f"{self.id}_{self.target}_ori{self.frames}"


def world_prompts(durations: Sequence[int], count: int) -> list[Prompt]:
    """The first `count` held-out captions at each duration. A prompt's id does not depend on what else is asked for.

    Raises ValueError naming a duration or a count that there is not.
    """
    scenes = held_out_scenes()
    if not 1 <= count <= len(scenes):
        raise ValueError(f"prompts: {count} is not allowed; allowed: 1 to {len(scenes)}, the held-out captions")
    return [
        Prompt(
            id=DURATIONS.index(checked(frames)) * len(scenes) + number + 1,
            text=scene.caption,
            target=frames,
            frames=frames,
            scene=scene,
        )
        for frames in durations
        for number, scene in enumerate(scenes[:count])
    ]


def read_prompts(file: Path, durations: Sequence[int], count: int) -> list[Prompt]:
    """The first `count` rows of each duration, of a CSV with the columns id, prompt and duration.

    Raises ValueError naming file, line, column and what is allowed.
    """
    rows = list(_rows(file))
    found: list[Prompt] = []
    for frames in map(checked, durations):
        target = frames if any(row.target == frames for row in rows) else CUT_FROM.get(frames, frames)
        chosen = [row for row in rows if row.target == target][:count]
        if not chosen:
            there = ", ".join(str(each) for each in sorted({row.target for row in rows}))
            raise ValueError(f"{file}: durations: {frames} is in no row; allowed: {there}")
        found += [Prompt(id=row.id, text=row.text, target=target, frames=frames, scene=row.scene) for row in chosen]
    return found


def write_prompts(file: Path, prompts: Iterable[Prompt]) -> None:
    """A CSV in the same columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        writer.writerows((prompt.id, prompt.text, prompt.target) for prompt in prompts)


def checked(duration: int) -> int:
    """The duration. Raises ValueError for one that is none of the bench's."""
    if duration not in DURATIONS:
        allowed = ", ".join(map(str, DURATIONS))
        raise ValueError(f"durations: {duration} is not allowed; allowed: {allowed}")
    return duration


def _rows(file: Path) -> Iterable[Prompt]:
    seen: dict[int, int] = {}
    with file.open(newline="") as lines:
        reader = csv.DictReader(lines)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{file}: column {missing[0]!r} is missing; allowed: a CSV with {', '.join(COLUMNS)}")
        for number, row in enumerate(reader, 2):
            place = f"{file}: row {number}"
            identity, target = (_integer(place, name, row[name]) for name in ("id", "duration"))
            if identity in seen:
                raise ValueError(
                    f"{place}: id: {identity} is not allowed; allowed: one that row {seen[identity]} has not"
                )
            if not (row["prompt"] or "").strip():
                raise ValueError(
                    f"{place}: prompt: {row['prompt']!r} is not allowed; allowed: a text that is not empty"
                )
            seen[identity] = number
            yield Prompt(id=identity, text=row["prompt"], target=target, frames=target, scene=_scene(row["prompt"]))


def _integer(place: str, name: str, text: str | None) -> int:
    if text is None or not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"{place}: {name}: {text!r} is not allowed; allowed: an integer of at least 1")
    return int(text)


def _scene(text: str) -> Scene | None:
    try:
        return Scene.from_caption(text)
    except ValueError:
        return None
