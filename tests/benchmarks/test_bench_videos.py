"""Prompts, ways to run a checkpoint, and the folder of videos that a run which was cut goes on with."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench.make import COMPARED, REAL, make_real
from benchmarks.bench.prompts import Prompt, read_prompts, world_prompts, write_prompts
from benchmarks.bench.sources import Size, world
from benchmarks.bench.videos import begin, read_frames, read_made, video_of, write_video
from benchmarks.bench.ways import parse_way
from helios_training.aims import FIRST_SEED
from helios_training.world import Scene, draw_clip

SIZE = Size(height=64, width=128)
SCENE = Scene("big", "blue", "ring", "slowly", "right", "sky")
PROMPT = Prompt(id=7, text=SCENE.caption, target=120, frames=40, scene=SCENE)


def test_prompts_keep_their_ids_whatever_else_is_asked_for() -> None:
    few, many = world_prompts([240], 2), world_prompts([81, 240, 1440], 48)
    assert [prompt for prompt in many if prompt.frames == 240][:2] == few
    assert len({prompt.id for prompt in many}) == 3 * 48
    assert few[0].stem == "49_240_ori240"
    with pytest.raises(ValueError, match=r"durations: 100 is not allowed; allowed: 81, 240, 720, 1440"):
        world_prompts([100], 1)
    with pytest.raises(ValueError, match=r"prompts: 49 is not allowed; allowed: 1 to 48"):
        world_prompts([81], 49)


def test_a_csv_in_the_references_columns_is_read_and_short_videos_are_cut_out_of_longer_ones(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text(f'id,prompt,duration\n1,"A street, at night",120\n2,{SCENE.caption},240\n3,more,240\n')
    found = read_prompts(file, [81, 240], 1)
    assert [(prompt.stem, prompt.text, prompt.scene) for prompt in found] == [
        ("1_120_ori81", "A street, at night", None),
        ("2_240_ori240", SCENE.caption, SCENE),
    ]
    write_prompts(tmp_path / "again.csv", found)
    assert read_prompts(tmp_path / "again.csv", [81, 240], 1) == found


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("id,prompt\n1,x\n", "column 'duration' is missing"),
        ("id,prompt,duration\n1,x,long\n", "row 2: duration: 'long' is not allowed"),
        ("id,prompt,duration\n1,x,81\n1,y,81\n", "row 3: id: 1 is not allowed; allowed: one that row 2 has not"),
        ("id,prompt,duration\n1, ,81\n", "row 2: prompt: ' ' is not allowed"),
        ("id,prompt,duration\n1,x,240\n", "durations: 81 is in no row; allowed: 240"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(text: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=named):
        read_prompts(file, [81], 8)


def test_ways_say_what_a_request_asks_for_and_which_variants_take_it() -> None:
    way = parse_way("2-2-2+no-anchor+amplified")
    assert way.fields == {"pyramid_steps": (2, 2, 2), "keep_first_frame": False, "amplify_first_chunk": True}
    assert [way.fits(variant) for variant in ("base", "mid", "distilled")] == [False, False, True]
    assert [parse_way("50").fits(variant) for variant in ("base", "mid", "distilled")] == [True, False, False]
    assert all(parse_way("default").fits(variant) for variant in ("base", "mid", "distilled"))
    with pytest.raises(ValueError, match="variants: 'fast' is not allowed; allowed: default, no-anchor, amplified"):
        parse_way("fast")
    with pytest.raises(ValueError, match="pyramid_steps"):
        parse_way("0-1-1")


def test_a_video_is_cut_to_its_length_and_shows_what_was_drawn(tmp_path: Path) -> None:
    made = write_video(tmp_path, PROMPT, world(SIZE)(PROMPT, {}))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["7_120_ori40.json", "7_120_ori40.mp4"]
    frames = read_frames(video_of(tmp_path, PROMPT))
    drawn = draw_clip(SCENE, FIRST_SEED + 7, frames=40, height=64, width=128).frames
    assert frames.shape == drawn.shape
    assert np.abs(frames.astype(int) - drawn).mean() < 2.5
    assert np.abs((frames.astype(int) - drawn).mean(axis=(0, 1, 2))).max() < 0.3
    assert (made.frames, read_made(tmp_path, PROMPT)) == (66, made)
    with pytest.raises(ValueError, match="7_120_ori40: 33 frames came; allowed: at least 40"):
        write_video(tmp_path, PROMPT, (piece for piece, _ in zip(world(SIZE)(PROMPT, {}), range(2), strict=False)))


def test_what_is_there_is_not_made_again_and_videos_of_another_kind_are_refused(tmp_path: Path) -> None:
    counted: list[int] = []
    real, compared = make_real(tmp_path, [PROMPT], SIZE, lambda: counted.append(1))
    files = [video_of(folder, PROMPT) for folder in (real, compared)]
    assert [folder.name for folder in (real, compared)] == [REAL, COMPARED]
    assert not np.array_equal(read_frames(files[0]), read_frames(files[1]))
    files[1].unlink()
    files[0].write_bytes(b"kept")
    make_real(tmp_path, [PROMPT], SIZE, lambda: counted.append(1))
    assert files[0].read_bytes() == b"kept"
    assert files[1].stat().st_size > 1000
    assert len(counted) == 4
    with pytest.raises(
        ValueError, match="height: 64 made the videos that are there, not 128; allowed: the same, or another"
    ):
        make_real(tmp_path, [PROMPT], Size(height=128, width=128), lambda: None)
    begin(real, json.loads((real / "about.json").read_text()))
