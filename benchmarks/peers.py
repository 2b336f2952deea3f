"""Our pipeline and diffusers', in one process, from the same random weights: the same tensors, held once."""

import copy
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, HeliosDMDScheduler, HeliosPyramidPipeline, HeliosTransformer3DModel
from torch import nn
from transformers import UMT5EncoderModel

from benchmarks.published import text_config
from benchmarks.sizes import Size, TextShape
from helios_engine import HeliosPipeline
from helios_engine.configs import TransformerConfig
from helios_engine.loading.text import load_tokenizer
from helios_engine.loading.tiny import write_tiny
from helios_engine.loading.vae import DECODER_PREFIXES, ENCODER_PREFIXES
from helios_engine.model.attention import JoinedProjections
from helios_engine.model.block import Block
from helios_engine.model.transformer import HeliosTransformer, parameter_dtype
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.text.encoder import TextEncoder
from helios_engine.vae.decoder import VAEDecoder, WanDecoder
from helios_engine.vae.encoder import VAEEncoder, WanEncoder


@dataclass(frozen=True, kw_only=True)
class Peers:
    """ours, diffusers: the pipelines. Both have the same text encoder and tokenizer."""

    ours: HeliosPipeline
    diffusers: Any


def build(size: Size) -> Peers:
    """Both pipelines on the size's device. Weights are drawn there, so none have to be copied to it."""
    device = torch.device(size.device)
    ours, transformer = transformers(size.transformer, device, size.dtype)
    vae, decoder, encoder = _vaes(size, device)
    text_encoder, tokenizer = _text_encoder(size.text, device, size.dtype)
    pipe = HeliosPyramidPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=HeliosDMDScheduler(use_dynamic_shifting=size.scheduler.use_dynamic_shifting),
        transformer=transformer,
        is_distilled=True,
    )
    pipe.set_progress_bar_config(disable=True)
    pipeline = HeliosPipeline(
        "distilled",
        TextEncoder(text_encoder, tokenizer),
        Denoiser(ours, size.scheduler),
        VAEDecoder(decoder),
        VAEEncoder(encoder),
    )
    return Peers(ours=pipeline, diffusers=pipe)


def transformers(config: TransformerConfig, device: torch.device, dtype: torch.dtype) -> tuple[HeliosTransformer, Any]:
    """Our DiT and diffusers', of the same weights; on a GPU with joined projections, as a replica has them."""
    with torch.device("meta"):
        theirs, ours = HeliosTransformer3DModel(**asdict(config)), HeliosTransformer(config)
    weights = random_weights(ours, device, lambda name: parameter_dtype(name, dtype))
    ours.load_state_dict(weights, assign=True)
    theirs.load_state_dict(weights, strict=True, assign=True)
    rebuilt = HeliosTransformer3DModel(**{**asdict(config), "num_layers": 0})
    theirs.rope = rebuilt.rope.to(device)  # it has buffers, which no state dict holds
    del weights
    if device.type == "cuda":
        join_projections(ours, theirs)
    return ours.eval().requires_grad_(False), theirs.eval().requires_grad_(False)


def join_projections(ours: HeliosTransformer, theirs: Any) -> None:
    """Ours joins its projections as a replica does; diffusers gets its joined ones beside the separate ones.

    All are views of the same memory: no weight is held twice. diffusers goes on with the separate ones until
    `use_joined` is called.
    """
    ours.join_projections()
    for own, other in zip(ours.blocks, theirs.blocks, strict=True):
        assert isinstance(own, Block)
        other.attn1.fuse_projections()
        joined = own.attn1.joined
        assert isinstance(joined, JoinedProjections)
        for name in ("weight", "bias"):
            getattr(other.attn1.to_qkv, name).data = getattr(joined, name)
            _share(name, getattr(joined, name), [(other.attn1.to_q, other.attn1.to_k, other.attn1.to_v)])
        other.attn2.fuse_projections()
        for name in ("weight", "bias"):
            layers = [(attention.to_k, attention.to_v) for attention in (own.attn2, other.attn2)]
            _share(name, getattr(other.attn2.to_kv, name), layers)
    use_joined(theirs, joined=False)


def use_joined(transformer: Any, *, joined: bool) -> None:
    """Whether diffusers' blocks, for which `join_projections` was called, run their joined projections."""
    for block in transformer.blocks:
        block.attn1.fused_projections = block.attn2.fused_projections = joined


def _share(name: str, joined: torch.Tensor, groups: list[tuple[Any, ...]]) -> None:
    for layers in groups:
        for layer, part in zip(layers, joined.detach().chunk(len(layers)), strict=True):
            getattr(layer, name).data = part


def weight_bytes(*modules: nn.Module) -> int:
    """Bytes of the modules' parameters; memory that several share counts once."""
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for m in modules for p in m.parameters()}
    return sum(storages.values())


def compiled(pipe: Any, *, regional: bool) -> Any:
    """diffusers' pipeline with its text encoder, transformer and both halves of its VAE under torch.compile.

    Weights are shared. Shapes are static: one program per pyramid stage, which is what its authors recommend for speed;
    regional: one per stage for all blocks, which they recommend for large models, as it compiles in a fraction of the
    time.
    """
    parts = {name: getattr(pipe, name) for name in ("tokenizer", "scheduler")}
    text_encoder, transformer, vae = (copy.copy(part) for part in (pipe.text_encoder, pipe.transformer, pipe.vae))
    text_encoder.compile(dynamic=False)
    vae._modules = dict(vae._modules)
    if regional:
        transformer._modules = dict(transformer._modules)
        transformer.blocks = nn.ModuleList(copy.copy(block) for block in transformer.blocks)
        transformer.compile_repeated_blocks(dynamic=False)
    else:
        transformer.compile(dynamic=False)
    for half in ("encoder", "decoder"):
        module = copy.copy(getattr(vae, half))
        module.compile(dynamic=False)
        setattr(vae, half, module)
    made = HeliosPyramidPipeline(
        **parts, text_encoder=text_encoder, transformer=transformer, vae=vae, is_distilled=True
    )
    made.set_progress_bar_config(disable=True)
    return made


def options_of(config: Any) -> dict[str, Any]:
    """A configuration as diffusers' classes take it."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def random_weights(module: nn.Module, device: torch.device, dtype_of: Any) -> dict[str, torch.Tensor]:
    """Weights of sane scale by name: matrices keep the variance of what they multiply, vectors are near one or zero."""
    generator = torch.Generator(device).manual_seed(0)
    weights = {}
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator, device=device)
        if parameter.dim() < 2 or name.endswith("gamma"):
            noise = noise * 0.2 + float(name.endswith(("gamma", "norm_q.weight", "norm_k.weight", "norm2.weight")))
        else:
            noise /= parameter[0].numel() ** 0.5
        weights[name] = noise.to(dtype_of(name))
    return weights


def _vaes(size: Size, device: torch.device) -> tuple[AutoencoderKLWan, WanDecoder, WanEncoder]:
    with torch.device("meta"):
        vae, decoder, encoder = AutoencoderKLWan(**options_of(size.vae)), WanDecoder(size.vae), WanEncoder(size.vae)
    weights = random_weights(vae, device, lambda _: torch.float32)
    vae.load_state_dict(weights, assign=True)
    for half, ignored in ((decoder, ENCODER_PREFIXES), (encoder, DECODER_PREFIXES)):
        half.load_state_dict({k: v for k, v in weights.items() if not k.startswith(ignored)}, assign=True)
    return vae.eval().requires_grad_(False), decoder, encoder


def _text_encoder(shape: TextShape, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """A UMT5 of random weights, with the tokenizer of the tiny checkpoints."""
    with torch.device("meta"):
        model = UMT5EncoderModel(text_config(shape))
    model.encoder.set_input_embeddings(model.shared)
    weights = random_weights(model, device, lambda _: dtype)
    model.load_state_dict(weights, assign=True, strict=False)
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
        write_tiny(folder)
        tokenizer = load_tokenizer(Path(folder), shape.vocab_size)
    return model.eval().requires_grad_(False), tokenizer


def describe(size: Size) -> dict[str, Any]:
    """The size as the results record it."""
    text = json.dumps(asdict(size), default=str)
    described: dict[str, Any] = json.loads(text)
    return described
