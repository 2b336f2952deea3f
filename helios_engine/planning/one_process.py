"""The arrangement of a model that one process holds: on the first GPU, or where the caller says."""

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch

from helios_engine.checkpoint import Checkpoint
from helios_engine.options import DtypeName, VAEDtypeName
from helios_engine.planning.arrange import Space, Wanted, arrange
from helios_engine.planning.machine import LEAST_CAPABILITY, this_machine
from helios_engine.planning.needs import Needs
from helios_engine.vae.cudnn import FULL_CUDNN
from helios_engine.vae.slices import ACTIVATION_BUDGET_BYTES

DTYPES: dict[torch.dtype, DtypeName] = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """`Arrangement`, on devices that may be numbered."""

    text: str | torch.device
    denoiser: str | torch.device
    decoder: str | torch.device
    dtype: DtypeName
    vae_dtype: VAEDtypeName
    offload_budget_bytes: int | None
    activation_budget_bytes: int | None


def for_this_machine(
    checkpoint: Checkpoint,
    size: tuple[int, int],
    dtype: torch.dtype | None,
    adapters: Iterable[str | PathLike[str]] = (),
) -> Placement:
    """size: height and width of the largest video. dtype: None: the machine's. adapters: files.

    Raises CheckpointError and DoesNotFit.
    """
    machine, (height, width) = this_machine(), size
    taken = sum(Path(file).stat().st_size for file in adapters if Path(file).is_file())
    needs = Needs.of(checkpoint, height=height, width=width, adapter_bytes=taken)
    gpu = next((gpu for gpu in machine.gpus[:1] if gpu.capability >= LEAST_CAPABILITY), None)
    space = Space(
        gpu_bytes=gpu.memory_bytes if gpu else 0,
        host_bytes=machine.host_bytes,
        half_vae=machine.cudnn >= FULL_CUDNN,
    )
    return Placement(**vars(arrange(needs, Wanted(dtype="auto" if dtype is None else _name(dtype)), space)))


def all_on(device: str | torch.device, dtype: torch.dtype | None) -> Placement:
    """Everything on one device, the VAE in float32."""
    default: DtypeName = "float32" if torch.device(device).type == "cpu" else "bfloat16"
    return Placement(
        text=device,
        denoiser=device,
        decoder=device,
        dtype=default if dtype is None else _name(dtype),
        vae_dtype="float32",
        offload_budget_bytes=None,
        activation_budget_bytes=ACTIVATION_BUDGET_BYTES,
    )


def _name(dtype: torch.dtype) -> DtypeName:
    if dtype not in DTYPES:
        raise ValueError(f"dtype: {dtype} is not allowed; allowed: {', '.join(map(str, DTYPES))}")
    return DTYPES[dtype]
