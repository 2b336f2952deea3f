"""Latent files: written and read back; foreign, damaged and unsafe ones are refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helios_engine.vae.encoder import WanEncoder
from helios_training.data.encode import encode_sections, encode_world, statistics
from helios_training.data.latents import LatentClip, LatentFolder, file_name, read_latents, write_latents
from helios_training.errors import TrainingError
from helios_training.small.sizes import small_vae

CAPTION = "a small red ball moves slowly left over the sea"


def clip(sections: int = 2) -> LatentClip:
    latents = torch.randn(sections, 16, 9, 8, 16, generator=torch.Generator().manual_seed(0))
    return LatentClip(caption=CAPTION, latents=latents)


def test_a_clip_comes_back_in_half_precision(tmp_path: Path) -> None:
    file = write_latents(tmp_path, "one", clip())
    assert file.name == "one_66_64_128.safetensors"
    found = read_latents(file)
    assert found.caption == CAPTION
    assert torch.equal(found.latents, clip().latents.half())
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_references_files_are_read_if_they_hold_tensors_and_text_only(tmp_path: Path) -> None:
    file = tmp_path / "v_66_64_128.pt"
    embeds = torch.randn(512, 8)
    torch.save({"vae_latent": clip().latents, "prompt_embed": embeds, "prompt_raw": CAPTION}, file)
    found = read_latents(file)
    assert torch.equal(found.latents, clip().latents)
    assert found.embeds is not None
    assert torch.equal(found.embeds, embeds)


def test_a_picture_inside_is_refused_by_name(tmp_path: Path) -> None:
    from PIL import Image

    file = tmp_path / "v_66_64_128.pt"
    torch.save({"vae_latent": clip().latents, "prompt_raw": CAPTION, "first_frame": Image.new("RGB", (2, 2))}, file)
    with pytest.raises(TrainingError, match=r"v_66_64_128.pt: holds PIL\.Image.*never unpickled"):
        read_latents(file)


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def foreign(file: Path) -> None:
    write_latents(file.parent, "one", LatentClip(caption=CAPTION, latents=torch.randn(2, 16, 8, 8, 16)))


def nameless(file: Path) -> None:
    write_latents(file.parent, "one", LatentClip(caption=" ", latents=clip().latents))


def infinite(file: Path) -> None:
    write_latents(file.parent, "one", LatentClip(caption=CAPTION, latents=clip().latents * float("inf")))


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (damaged, "is truncated or no safetensors file"),
        (foreign, r"vae_latent: has shape \[2, 16, 8, 8, 16\]; expected \[2, 16, 9, 8, 16\]"),
        (nameless, "prompt_raw: is missing or empty"),
        (infinite, "vae_latent: holds values that are not finite"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, harm: object, named: str) -> None:
    file = write_latents(tmp_path, "one", clip())
    harm(file)  # type: ignore[operator]
    with pytest.raises(TrainingError, match=f"one_66_64_128.safetensors: {named}"):
        read_latents(file)


def test_a_foreign_name_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no latents"):
        LatentFolder(tmp_path)
    (tmp_path / "notes.safetensors").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"notes.safetensors: its name is not allowed"):
        LatentFolder(tmp_path)[0]


@pytest.fixture(scope="module")
def encoder() -> WanEncoder:
    torch.manual_seed(0)
    return WanEncoder(small_vae()).eval()


def test_sections_are_encoded_each_on_its_own(encoder: WanEncoder) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
    latents = encode_sections(encoder, frames)
    assert latents.shape == (2, 16, 9, 2, 2)
    torch.testing.assert_close(latents[1:], encode_sections(encoder, frames[33:66]))


def test_a_clip_shorter_than_a_section_is_refused(encoder: WanEncoder) -> None:
    with pytest.raises(TrainingError, match="clip: 32 frames are not allowed; allowed: at least 33"):
        encode_sections(encoder, np.zeros((32, 16, 16, 3), dtype=np.uint8))


def test_what_is_there_is_not_encoded_again(encoder: WanEncoder, tmp_path: Path) -> None:
    size = {"sections": 1, "height": 16, "width": 32}
    assert len(list(encode_world(encoder, tmp_path, range(2), **size))) == 2
    file = tmp_path / file_name("world-000001", 1, 16, 32)
    written = file.stat().st_mtime_ns
    assert [path.name for path in encode_world(encoder, tmp_path, range(3), **size)] == [
        "world-000002_33_16_32.safetensors"
    ]
    assert file.stat().st_mtime_ns == written


def test_statistics_normalise(encoder: WanEncoder) -> None:
    mean, std = statistics(encoder, clips=3, height=16, width=32)
    normalising = WanEncoder(small_vae(mean, std)).eval()
    normalising.load_state_dict(encoder.state_dict())
    again, one = statistics(normalising, clips=3, height=16, width=32)
    assert again == pytest.approx([0.0] * 16, abs=1e-4)
    assert one == pytest.approx([1.0] * 16, abs=1e-4)
