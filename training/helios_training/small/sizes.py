"""Sizes of the small model's parts."""

from helios_engine.configs import SchedulerConfig, SolverConfig, TransformerConfig, VAEConfig

HEIGHT, WIDTH = 64, 128
"""Pixels. The coarsest stage of the pyramid then has 1 x 2 tokens a frame."""
TEXT_DIM = 64


def small_vae(latents_mean: tuple[float, ...] | None = None, latents_std: tuple[float, ...] | None = None) -> VAEConfig:
    """1.9 M parameters; 40 GFLOP decode a chunk of 64x128. Without statistics latents are as the encoder gives them."""
    return VAEConfig(
        base_dim=16,
        dim_mult=(1, 1, 2, 4),
        num_res_blocks=1,
        latents_mean=latents_mean or (0.0,) * 16,
        latents_std=latents_std or (1.0,) * 16,
    )


def small_transformer() -> TransformerConfig:
    """Width 192, 6 layers. The memory patches are in, the learnable gain of history keys is not (as released)."""
    return TransformerConfig(
        num_attention_heads=3,
        attention_head_dim=64,
        rope_dim=(24, 20, 20),
        text_dim=TEXT_DIM,
        freq_dim=128,
        ffn_dim=512,
        num_layers=6,
        is_amplify_history=False,
    )


def small_solver(stages: int) -> SolverConfig:
    """Base (1 stage) and Mid (3). exp(1.1) = 3 shifts Base towards noise; Mid's stages are not shifted.

    The published shift falls below 1 for as few tokens as these, which would leave too little noise.
    """
    if stages == 1:
        return SolverConfig(stages=1, stage_range=(0.0, 1.0), use_dynamic_shifting=True, base_shift=1.1, max_shift=1.1)
    return SolverConfig(stages=stages, use_dynamic_shifting=True, base_shift=0.0, max_shift=0.0)


def small_distilled() -> SchedulerConfig:
    """The same pyramid stages as Mid's: a linear shift of 1."""
    return SchedulerConfig(use_dynamic_shifting=True, base_shift=1.0, max_shift=1.0)
