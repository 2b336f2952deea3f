"""The models and requests that the engine is measured with: one that two cores run in seconds, the published one."""

from dataclasses import dataclass

import torch

from helios_engine.configs import SchedulerConfig, TransformerConfig, VAEConfig
from helios_engine.loading.tiny import LATENTS_MEAN, LATENTS_STD

SCHEDULER = SchedulerConfig(use_dynamic_shifting=True)


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """UMT5's sizes."""

    vocab_size: int
    d_model: int
    d_ff: int
    layers: int
    heads: int
    d_kv: int = 64


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model and the video it makes (pixels). dtype: of the DiT and the text encoder; the VAE runs in float32."""

    name: str
    device: str
    dtype: torch.dtype
    transformer: TransformerConfig
    vae: VAEConfig
    text: TextShape
    height: int
    width: int
    scheduler: SchedulerConfig = SCHEDULER


def _vae(base_dim: int, num_res_blocks: int = 2) -> VAEConfig:
    return VAEConfig(
        base_dim=base_dim, num_res_blocks=num_res_blocks, latents_mean=LATENTS_MEAN, latents_std=LATENTS_STD
    )


_SMALL = TransformerConfig(
    num_attention_heads=8,
    attention_head_dim=64,
    rope_dim=(24, 20, 20),
    text_dim=512,
    ffn_dim=1408,
    num_layers=8,
    is_amplify_history=True,
)
_TINY = TransformerConfig(
    num_attention_heads=2,
    attention_head_dim=24,
    rope_dim=(8, 8, 8),
    text_dim=32,
    freq_dim=32,
    ffn_dim=96,
    num_layers=2,
    is_amplify_history=True,
)
SIZES = {
    size.name: size
    for size in (
        Size(
            name="tiny",
            device="cpu",
            dtype=torch.float32,
            transformer=_TINY,
            vae=_vae(8, num_res_blocks=1),
            text=TextShape(vocab_size=256, d_model=32, d_ff=48, layers=2, heads=4, d_kv=8),
            height=64,
            width=64,
        ),
        Size(
            name="cpu",
            device="cpu",
            dtype=torch.float32,
            transformer=_SMALL,
            vae=_vae(32),
            text=TextShape(vocab_size=256, d_model=512, d_ff=1024, layers=6, heads=8),
            height=128,
            width=128,
        ),
        Size(
            name="gpu-full",
            device="cuda",
            dtype=torch.bfloat16,
            # history amplified (the default is that it is not) is what diffusers cannot run in bfloat16: its keys
            # become float32 there, which its attention refuses
            transformer=TransformerConfig(is_amplify_history=False),
            vae=_vae(96),
            text=TextShape(vocab_size=256_384, d_model=4096, d_ff=10_240, layers=24, heads=64),
            height=384,
            width=640,
        ),
    )
}
"""By name. `tiny` is what tests run the benchmark's code with."""
