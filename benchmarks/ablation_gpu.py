"""What each optimisation for GPUs is worth. The plain versions live here, not in the engine."""

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from typing import Any, TypeVar
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.ablation_case import GPU_ROWS, Ablation
from benchmarks.rows import request_for
from benchmarks.sizes import Size
from helios_engine import HeliosPipeline
from helios_engine.accelerate.compiling import compile_blocks
from helios_engine.accelerate.fp8 import quantise_linears
from helios_engine.accelerate.graphs import CudaRecorder, GraphedForward
from helios_engine.model import block
from helios_engine.model.block import Block
from helios_engine.model.transformer import HeliosTransformer, History, timestep_rows
from helios_engine.ops import attention_backends
from helios_engine.sampling import denoiser
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.vae import decoder as vae
from helios_engine.vae import layers as vae_layers
from helios_engine.vae.decoder import VAEDecoder
from helios_kernels.backend import SWITCH

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def gpu_ablations(
    size: Size, pipeline: HeliosPipeline, model: HeliosTransformer, history: History, text: Any, noise: Any
) -> Iterator[Ablation]:
    """All of them. history, text: as the model encoded them. noise: makes tensors on the size's device."""
    height, width = size.height // 8, size.width // 8
    fine, coarse = (noise(1, 16, 9, height // scale, width // scale).to(size.dtype) for scale in (1, 4))
    chunk, (timestep,) = noise(1, 16, 9, height, width), timestep_rows([500.0], fine.device)
    state, embeds = DenoiseState.initial(request_for(size, 1)), torch.ones(1, 512, size.transformer.text_dim)

    def step(transformer: Any = model, latents: torch.Tensor = fine) -> object:
        return transformer(latents, timestep, history, text)

    def decode() -> object:
        return pipeline.decoder.model(chunk)

    def make_chunk() -> object:
        return Denoiser(model, size.scheduler).denoise_chunk(state, embeds)[0]

    def off(name: str, work: Callable[[], object], switch: Callable[[], AbstractContextManager[Any]]) -> Ablation:
        def without() -> object:
            with switch():
                return work()

        return Ablation(name=name, of=GPU_ROWS[name], with_it=work, without=without)

    def option(name: str, with_it: Callable[[], object], without: Callable[[], object], **facts: bool) -> Ablation:
        return Ablation(name=name, of=GPU_ROWS[name], with_it=with_it, without=without, taken=False, **facts)

    @lru_cache(maxsize=1)
    def graphed() -> GraphedForward:
        return GraphedForward(model, CudaRecorder())

    @lru_cache(maxsize=1)
    def eight_bit() -> HeliosTransformer:
        quantised = shallow(model)
        quantise_linears(quantised)
        return quantised

    @lru_cache(maxsize=1)
    def half() -> VAEDecoder:
        return VAEDecoder(copy.deepcopy(pipeline.decoder.model).to(torch.bfloat16))

    @lru_cache(maxsize=1)
    def first() -> nn.Module:
        decoder = copy.deepcopy(pipeline.decoder.model)
        for parameter in decoder.parameters():
            parameter.data = parameter.data.contiguous()
        return decoder

    references = {SWITCH: "reference"}
    # the VAE first: its activations need the memory that graphs and a second set of weights take later
    yield off("fused norm and activation in the VAE", decode, lambda: mock.patch.dict(os.environ, references))
    yield Ablation(
        name="channels last in the VAE, in float32",
        of=GPU_ROWS["channels last in the VAE, in float32"],
        with_it=decode,
        without=lambda: channels_first(first(), chunk),
    )
    first.cache_clear()
    yield option("VAE in bfloat16, channels last", lambda: half().model(chunk), decode, exact=False)
    half.cache_clear()
    yield option("doubling as a transposed convolution, on a GPU", lambda: transposed(decode), decode)
    yield off("fused kernels in the DiT's blocks", step, lambda: mock.patch.dict(os.environ, references))
    yield off("queries, keys and values in one product, on a GPU", step, lambda: separate_projections(model))
    yield off(
        "GELU as the end of its product", step, lambda: mock.patch.object(block, "has_gelu_product", return_value=False)
    )
    torchs = attention_backends.torchs_choice
    yield off(
        "attention kernel chosen by timing",
        step,
        lambda: mock.patch.object(attention_backends.CHOOSER, "fastest", return_value=torchs),
    )
    yield off(
        "copies that the host does not wait for",
        make_chunk,
        lambda: mock.patch.object(denoiser, "to_device", lambda x, device: x.to(device)),
    )
    yield option("CUDA graphs", lambda: step(graphed(), coarse), lambda: step(model, coarse))
    graphed.cache_clear()
    yield option("8-bit linear layers", lambda: step(eight_bit()), step, exact=False)
    eight_bit.cache_clear()
    yield option("compiled blocks in place of the fused kernels", lambda: compiled_step(model, step), step)


def shallow(module: ModuleT) -> ModuleT:
    """A copy of the modules, of which some can be exchanged; the weights are shared."""
    copied = copy.copy(module)
    copied._modules = {name: None if part is None else shallow(part) for name, part in module._modules.items()}
    return copied


@contextmanager
def separate_projections(model: HeliosTransformer) -> Iterator[None]:
    """Three products instead of the joined one."""
    with ExitStack() as stack:
        for each in model.blocks:
            assert isinstance(each, Block)
            stack.enter_context(mock.patch.object(each.attn1, "joined", None))
        yield


def compiled_step(model: HeliosTransformer, step: Callable[[], object]) -> object:
    """A step with compiled blocks. What is compiled is kept: the first call pays for it."""
    kept: list[Any] = model.__dict__.setdefault("_compiled_calls", [])
    if not kept:
        compile_blocks(model)
        kept.extend(each._compiled_call_impl for each in model.blocks)
    for each, call in zip(model.blocks, kept, strict=True):
        each._compiled_call_impl = call
    model.compiled = True
    try:
        return step()
    finally:
        model.compiled = False
        for each in model.blocks:
            each._compiled_call_impl = None


def channels_first(decoder: nn.Module, latents: torch.Tensor) -> object:
    """Decoding as torch lays tensors out by itself; the decoder's weights are laid out so, too."""
    with mock.patch.object(vae_layers, "channels_last", return_value=False):
        return decoder(latents)


def transposed(decode: Callable[[], object]) -> object:
    """Decoding with the doubling that the CPU path has."""

    def double_size(self: Any, frames: torch.Tensor) -> torch.Tensor:
        convolution = self.resample[1]
        return F.conv_transpose2d(frames, vae.doubling(convolution.weight), convolution.bias, stride=2, padding=1)

    with mock.patch.object(vae.Upsampler, "_double_size", double_size):
        return decode()
