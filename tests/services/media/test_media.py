"""Chunks as fMP4 fragments, the finished MP4 and the artifact store."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helios_services.media.artifacts import ArtifactStore
from helios_services.media.boxes import boxes
from helios_services.media.encoder import EncodedChunk, EncoderSettings, encode_chunk
from helios_services.media.remux import remux

SETTINGS = EncoderSettings()
HEIGHT, WIDTH = 64, 128


def pictures(chunk: int) -> np.ndarray:
    """33 smooth frames that tell their chunk and number apart."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    frames = np.empty((33, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number in range(33):
        phase = 0.2 * (33 * chunk + number)
        for channel, pattern in enumerate((np.sin(x / 20 + phase), np.cos(y / 15 - phase), np.sin((x + y) / 30))):
            frames[number, ..., channel] = 128 + 90 * pattern
    return frames


@pytest.fixture(scope="module")
def chunks() -> list[EncodedChunk]:
    return [encode_chunk(pictures(k), index=k, fps=24, settings=SETTINGS) for k in range(4)]


def decode(data: bytes) -> tuple[list[Fraction], np.ndarray]:
    """Presentation times in seconds, and RGB frames."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
    times = [Fraction(frame.pts) * frame.time_base for frame in frames]
    return times, np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_all_fragments_are_the_whole_video(chunks: list[EncodedChunk]) -> None:
    times, frames = decode(chunks[0].init_segment + b"".join(chunk.fragment for chunk in chunks))
    assert times == [Fraction(number, 24) for number in range(33 * 4)]
    assert psnr(frames, np.concatenate([pictures(k) for k in range(4)])) > 35


@pytest.mark.parametrize("first", [1, 2, 3])
def test_playback_can_start_at_any_chunk(chunks: list[EncodedChunk], first: int) -> None:
    times, frames = decode(chunks[0].init_segment + b"".join(chunk.fragment for chunk in chunks[first:]))
    assert times[0] == Fraction(33 * first, 24)
    assert psnr(frames[:33], pictures(first)) > 35


def test_init_segment_is_the_same_for_every_chunk_and_fragments_are_one_closed_gop(chunks: list[EncodedChunk]) -> None:
    assert len({chunk.init_segment for chunk in chunks}) == 1
    for number, chunk in enumerate(chunks):
        parts = dict(boxes(chunk.fragment))
        assert list(parts) == ["moof", "mdat"]
        sequence = parts["moof"].index(b"mfhd") + 8
        assert int.from_bytes(parts["moof"][sequence : sequence + 4], "big") == number + 1
        with av.open(io.BytesIO(chunk.init_segment + chunk.fragment)) as container:
            keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
        assert keys == [True] + [False] * 32


def test_same_frames_same_bytes() -> None:
    one, two = (encode_chunk(pictures(1), index=1, fps=24, settings=SETTINGS) for _ in range(2))
    assert one == two


def test_planes_are_encoded_as_the_frames_they_were_made_of() -> None:
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures(1)]
    planes = [
        frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG").to_ndarray()
        for frame in frames
    ]
    made = encode_chunk(np.stack(planes), index=1, fps=24, settings=SETTINGS)
    assert made == encode_chunk(pictures(1), index=1, fps=24, settings=SETTINGS)


@pytest.mark.parametrize("fps", [1, 7, 30, 120])
def test_frame_rates(fps: int) -> None:
    made = [encode_chunk(pictures(k), index=k, fps=fps, settings=SETTINGS) for k in range(2)]
    times, _ = decode(made[0].init_segment + made[0].fragment + made[1].fragment)
    assert times == [Fraction(number, fps) for number in range(66)]


def test_remuxed_file_is_an_ordinary_mp4(chunks: list[EncodedChunk], tmp_path: Path) -> None:
    file = tmp_path / "video.mp4"
    pieces = [chunks[0].init_segment, *(chunk.fragment for chunk in chunks)]
    assert remux(iter(pieces), file) == file.stat().st_size
    kinds = [kind for kind, _ in boxes(file.read_bytes())]
    assert "moof" not in kinds
    assert kinds.index("moov") < kinds.index("mdat")
    times, frames = decode(file.read_bytes())
    assert times == [Fraction(number, 24) for number in range(33 * 4)]
    assert np.array_equal(frames, decode(b"".join(pieces))[1])


def test_truncated_data_is_no_run_of_boxes(chunks: list[EncodedChunk]) -> None:
    with pytest.raises(ValueError, match="no whole box at byte 236 of 500"):
        list(boxes(chunks[0].fragment[:-1][:500]))


def test_artifacts_appear_whole_and_are_read_from_any_byte(tmp_path: Path) -> None:
    store, source = ArtifactStore(str(tmp_path / "artifacts")), tmp_path / "source"
    source.write_bytes(b"0123456789")
    with pytest.raises(FileNotFoundError):
        store.size("a.mp4")
    store.publish(source, "a.mp4")
    assert store.size("a.mp4") == 10
    with store.open("a.mp4", 4) as reader:
        assert reader.read() == b"456789"
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", ["../a.mp4", "a/b.mp4", ".mp4", "a.mp3", "a.mp4\0", ""])
def test_artifact_names_cannot_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="artifact name"):
        ArtifactStore(str(tmp_path)).size(name)
