"""What phones, cameras and browsers write gives the right pixels at the right times, or a refusal by name."""

import numpy as np
import pytest
from PIL import Image

from helios_services.file_kinds import SUFFIXES, by_name
from helios_services.media.cover import cover
from helios_services.media.errors import MediaError, MediaReason
from helios_services.media.inputs import decode_clip, decode_image
from services.media.files import HEIGHT, LIMITS, WIDTH, gradient, psnr
from services.media.formats import BEGIN, CLIPS, END, PAGE, STILLS, Clip, Still, moving, table


@pytest.mark.parametrize("case", CLIPS, ids=lambda case: f"{case.suffix}, {case.name}")
def test_clips(case: Clip) -> None:
    # whichever clip's type a file is sent as, it is what its bytes say
    sent_as = by_name(f"clip.{case.suffix}"), "video/mp4"
    height, width = (case.width, case.height) if case.rotation else (case.height, case.width)
    for content_type in sent_as:
        if case.refused:
            with pytest.raises(MediaError, match=case.refused) as caught:
                decode_clip(case.make(), content_type, height=64, width=96, fps=24, keep_last=33, limits=LIMITS)
            assert caught.value.reason == MediaReason.TYPE_NOT_SUPPORTED
            continue
        clip = decode_clip(case.make(), content_type, height=height, width=width, fps=24, keep_last=33, limits=LIMITS)
        made = moving(40, case.height, case.width)
        if case.rotation:
            made = [np.rot90(frame, case.rotation // 90) for frame in made]
        aspect = float(case.aspect or 1)
        made = [cover(Image.fromarray(frame), height, width, pixel_aspect=aspect) for frame in made]
        assert clip.num_frames == 40
        assert psnr(clip.first, made[0]) > case.psnr
        errors = [[float(np.mean((got.astype(float) - frame) ** 2)) for frame in made] for got in clip.tail]
        assert np.argmin(errors, axis=1).tolist() == list(range(7, 40))  # each is its own, none is off by one
        assert min(psnr(got, frame) for got, frame in zip(clip.tail, made[7:], strict=True)) > case.psnr


@pytest.mark.parametrize("case", STILLS, ids=lambda case: case.name)
def test_stills(case: Still) -> None:
    data = case.make()
    for content_type in (by_name(f"picture.{case.suffix}") or "image/jpeg", "image/png"):
        if case.refused:
            with pytest.raises(MediaError, match=f"{case.refused} is not allowed; allowed: image/png") as caught:
                decode_image(data, content_type, height=HEIGHT, width=WIDTH, limits=LIMITS)
            assert caught.value.reason == MediaReason.TYPE_NOT_SUPPORTED
            assert len(str(caught.value)) < 300
            continue
        frame = decode_image(data, content_type, height=HEIGHT, width=WIDTH, limits=LIMITS)
        assert psnr(frame, gradient()) >= case.psnr


def test_the_page_lists_what_is_tried() -> None:
    page = PAGE.read_text()
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == table()
    for kind, suffix in SUFFIXES.items():
        assert kind in page
        assert any(case.suffix == suffix for case in (*CLIPS, *STILLS))
