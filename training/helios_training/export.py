"""From a run's snapshot to parts of a checkpoint in the published layout: the averages where the run keeps any."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from helios_engine.checkpoint import load_weights
from helios_engine.checkpoint.open import read_json
from helios_engine.errors import CheckpointError
from helios_engine.loading.shapes import shapes
from helios_engine.options import VariantName
from helios_engine.vae.decoder import WanDecoder
from helios_engine.vae.encoder import WanEncoder
from helios_training.data.encode import statistics
from helios_training.errors import TrainingError
from helios_training.small.checkpoint import write_index, write_text, write_transformer, write_vae
from helios_training.small.sizes import HEIGHT, WIDTH, small_transformer, small_vae
from helios_training.snapshot import read_snapshot

STATISTICS_CLIPS = 64


def weights_of(snapshot: Path, part: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """A part's weights whose names begin with the prefix, without it. Raises TrainingError if the run has none."""
    tensors, facts = read_snapshot(snapshot)
    found: dict[str, torch.Tensor] = {}
    for kind in ("weight", "average"):
        start = f"{part}.{kind}.{prefix}"
        found |= {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    if not found:
        stage = facts.get("stage")
        raise TrainingError(f"{snapshot}: stage: {stage!r} is not allowed; allowed: a run that trains {part}")
    return found


def export_vae(snapshot: Path, root: Path) -> None:
    """vae/ of a checkpoint, with the statistics of the latents of some clips.

    A VAE that is there already keeps its statistics: latents are encoded by them, and the encoder is the same.
    """
    encoder = weights_of(snapshot, "vae", "halves.encoder.")
    decoder = weights_of(snapshot, "vae", "halves.decoder.")
    known = known_statistics(root)
    if known is None:
        model = WanEncoder(small_vae())
        model.load_state_dict(encoder)
        known = statistics(model, clips=STATISTICS_CLIPS, height=HEIGHT, width=WIDTH)
    write_vae(root, small_vae(*known), encoder | decoder)


def vae_weights(start: Path) -> dict[str, torch.Tensor]:
    """Both halves in float32, of a snapshot or of a checkpoint folder with a vae/."""
    if start.is_file():
        return weights_of(start, "vae")
    with torch.device("meta"):
        halves = {"encoder": WanEncoder(small_vae()), "decoder": WanDecoder(small_vae())}
    expected = {name: shape for half in halves.values() for name, shape in shapes(half).items()}
    try:
        found = load_weights(start / "vae", expected, device="cpu", dtype_of=lambda _: torch.float32)
    except CheckpointError as error:
        raise TrainingError(str(error)) from None
    return {f"halves.{half}.{name}": found[name] for half, module in halves.items() for name in shapes(module)}


def known_statistics(root: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation in vae/config.json; None without one."""
    file = root / "vae" / "config.json"
    if not file.exists():
        return None
    config = read_json(file)
    return tuple(config["latents_mean"]), tuple(config["latents_std"])


def export_model(snapshot: Path, part: str, root: Path, variant: VariantName, beside: Path) -> None:
    """A whole checkpoint: the DiT of the snapshot, and from the checkpoint `beside` what the stage did not train."""
    for folder in ("vae", "text_encoder", "tokenizer"):
        if (beside / folder).is_dir() and beside != root:
            shutil.copytree(beside / folder, root / folder, dirs_exist_ok=True)
    write_index(root, variant)
    if part == "base":
        write_transformer(root, small_transformer(), weights_of(snapshot, part, "transformer."))
        write_text(root, text_weights(weights_of(snapshot, part, "text.model.")))
    else:
        write_transformer(root, small_transformer(), weights_of(snapshot, part))


def text_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The text encoder's weights without the second name of the shared table."""
    return {name: value for name, value in weights.items() if name != "encoder.embed_tokens.weight"}
