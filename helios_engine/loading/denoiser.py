"""The DiT from a checkpoint, with what makes it fit the device, and the denoiser around it."""

from collections.abc import Mapping, Sequence
from os import PathLike

import torch

from helios_engine.accelerate.fp8 import quantise_linears
from helios_engine.checkpoint import Checkpoint, load_weights, open_checkpoint
from helios_engine.loading.shapes import shapes
from helios_engine.lora import AdapterSet, load_adapter, merge
from helios_engine.model.transformer import HeliosTransformer, parameter_dtype
from helios_engine.offload import offload_blocks
from helios_engine.options import AttentionKernel, CompileMode, GuidanceBatching
from helios_engine.sampling.denoiser import Denoiser


def load_transformer(
    checkpoint: Checkpoint, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.bfloat16
) -> HeliosTransformer:
    """Loads `transformer/`; its parameters ask for gradients. Raises CheckpointError."""
    with torch.device("meta"):
        transformer = HeliosTransformer(checkpoint.transformer)
    weights = load_weights(
        checkpoint.root / "transformer",
        shapes(transformer),
        device=device,
        dtype_of=lambda name: parameter_dtype(name, dtype),
    )
    transformer.load_state_dict(weights, assign=True)
    return transformer


def load_denoiser(
    path: str | PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    prompt_cache_entries: int = 4,
    guidance_batching: GuidanceBatching = "auto",
    offload_budget_bytes: int | None = None,
    loras: Mapping[str, str | PathLike[str]] | None = None,
    merged_loras: Sequence[tuple[str | PathLike[str], float]] = (),
    compile: CompileMode = "off",
    fp8: bool = False,
    attention: AttentionKernel = "auto",
) -> Denoiser:
    """Loads `transformer/` and `scheduler/`, from a folder or an id on the Hub.

    offload_budget_bytes: device memory for the blocks' weights; the others wait in host memory. None: all are on the
    device. loras: adapter files by the names that requests use. merged_loras: adapter files and scales that become part
    of the weights. fp8: 8-bit linear layers. The other options are those of `Denoiser`.
    Raises CheckpointError; ValueError for a budget below one block, and for options that do not go together or not with
    the device.
    """
    if offload_budget_bytes is not None and (fp8 or compile != "off"):
        raise ValueError("offload_budget_bytes: a budget is not allowed with fp8 or compile; allowed: None")
    if loras and fp8:
        raise ValueError("loras: adapters are not allowed with fp8; allowed: merged ones")
    checkpoint, on_gpu = open_checkpoint(path), torch.device(device).type == "cuda"
    loaded_to = device if offload_budget_bytes is None else "cpu"
    transformer = load_transformer(checkpoint, device=loaded_to, dtype=dtype).requires_grad_(False)
    if merged_loras:
        merge(transformer, [(load_adapter(path, transformer), scale) for path, scale in merged_loras])
    adapters = AdapterSet(
        transformer,
        {name: load_adapter(path, transformer) for name, path in (loras or {}).items()},
        device=device,
    )
    if offload_budget_bytes is not None:
        offload_blocks(transformer, device, offload_budget_bytes)
    elif on_gpu:
        transformer.join_projections()
    if fp8:
        quantise_linears(transformer)
    if on_gpu:
        torch.cuda.empty_cache()  # what joining and quantising have left, which nothing of that size will ask for
    return Denoiser(
        transformer,
        checkpoint.scheduler,
        zero_star=checkpoint.cfg_zero_star,
        prompt_cache_entries=prompt_cache_entries,
        guidance_batching=guidance_batching,
        adapters=adapters,
        compile=compile,
        attention=attention,
    )
