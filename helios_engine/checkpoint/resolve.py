"""Where a checkpoint is: a folder, or an id on the Hugging Face Hub, which is downloaded or taken from the cache."""

import re
from os import PathLike
from pathlib import Path

from helios_engine.errors import CheckpointError

HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
ALLOWED = "a checkpoint folder, or a Hub id as org/name or org/name@revision"
FILES = (
    "model_index.json",
    "SHA256SUMS",
    "scheduler/*.json",
    "tokenizer/*.json",
    "tokenizer/*.model",
    *(f"{part}/*.{kind}" for part in ("transformer", "vae", "text_encoder") for kind in ("json", "safetensors")),
)
"""What is downloaded: the components that are loaded, and never pickles."""


def resolve_checkpoint(name_or_path: str | PathLike[str]) -> Path:
    """The folder of a checkpoint. An existing folder is taken as it is; anything of the form org/name[@revision] is
    looked up on the Hub, and without a network, or with HF_HUB_OFFLINE=1, in the Hub's cache only.

    Raises CheckpointError naming the value and what is allowed.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path
    match = HUB_ID.fullmatch(str(name_or_path))
    if path.exists() or match is None or ".." in str(name_or_path):
        raise CheckpointError(f"{path}: is not a folder; allowed: {ALLOWED}")
    return _from_hub(match["repo"], match["revision"])


def _from_hub(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # folders do not need it

    wanted = repo if revision is None else f"{repo}@{revision}"
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the client's own errors, and whatever its transport raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{wanted}: is not a folder, and no snapshot of it can be had from the Hub: {reason} Allowed: {ALLOWED}"
        ) from None
