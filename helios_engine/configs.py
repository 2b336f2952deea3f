"""Component configurations, field for field as the published checkpoints' JSON files name them."""

from dataclasses import dataclass

PYRAMID_STAGES = 3


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """transformer/config.json (`HeliosTransformer3DModel`)."""

    patch_size: tuple[int, int, int] = (1, 2, 2)
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    qk_norm: str = "rms_norm_across_heads"
    eps: float = 1e-6
    added_kv_proj_dim: int | None = None
    rope_dim: tuple[int, int, int] = (44, 42, 42)
    rope_theta: float = 10000.0
    guidance_cross_attn: bool = True
    zero_history_timestep: bool = True
    has_multi_term_memory_patch: bool = True
    is_amplify_history: bool = False
    history_scale_mode: str = "per_head"

    def __post_init__(self) -> None:
        fixed = {
            "patch_size": (1, 2, 2),
            "in_channels": 16,
            "out_channels": 16,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "added_kv_proj_dim": None,
            "guidance_cross_attn": True,
            "zero_history_timestep": True,
            "has_multi_term_memory_patch": True,
        }
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not supported; Helios uses {value!r}")
        if self.history_scale_mode not in ("per_head", "scalar"):
            raise ValueError(f"history_scale_mode: {self.history_scale_mode!r}; allowed: 'per_head', 'scalar'")
        if sum(self.rope_dim) != self.attention_head_dim or any(dim % 2 or dim < 2 for dim in self.rope_dim):
            raise ValueError(
                f"rope_dim: {self.rope_dim!r}; allowed: three even numbers with sum attention_head_dim = "
                f"{self.attention_head_dim}"
            )

    @property
    def inner_dim(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """vae/config.json (`AutoencoderKLWan`, Wan 2.1)."""

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attn_scales: tuple[float, ...] = ()
    temperal_downsample: tuple[bool, ...] = (False, True, True)  # published spelling
    dropout: float = 0.0
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    is_residual: bool = False
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int | None = None
    scale_factor_temporal: int = 4
    scale_factor_spatial: int = 8

    def __post_init__(self) -> None:
        fixed = {
            "z_dim": 16,
            "attn_scales": (),
            "temperal_downsample": (False, True, True),
            "is_residual": False,
            "in_channels": 3,
            "out_channels": 3,
            "patch_size": None,
            "scale_factor_temporal": 4,
            "scale_factor_spatial": 8,
        }
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not supported; Helios uses {value!r}")
        if len(self.dim_mult) != len(self.temperal_downsample) + 1:
            raise ValueError(f"dim_mult: {self.dim_mult!r}; allowed: 4 numbers")
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) != self.z_dim:
                raise ValueError(f"{name}: has {len(getattr(self, name))} entries; allowed: z_dim = {self.z_dim}")


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """scheduler/scheduler_config.json (`HeliosDMDScheduler`); the last four set the dynamic shift."""

    num_train_timesteps: int = 1000
    shift: float = 1.0
    stages: int = 3
    stage_range: tuple[float, ...] = (0.0, 1 / 3, 2 / 3, 1.0)
    gamma: float = 1 / 3
    prediction_type: str = "flow_prediction"
    use_flow_sigmas: bool = True
    use_dynamic_shifting: bool = False
    time_shift_type: str = "linear"
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15

    def __post_init__(self) -> None:
        if self.stages != PYRAMID_STAGES or len(self.stage_range) != PYRAMID_STAGES + 1:
            raise ValueError(
                f"stages: {self.stages!r} with {len(self.stage_range)} stage_range bounds; allowed: 3 with 4"
            )
        if self.prediction_type != "flow_prediction":
            raise ValueError(f"prediction_type: {self.prediction_type!r}; allowed: 'flow_prediction'")
        if self.time_shift_type not in ("linear", "exponential"):
            raise ValueError(f"time_shift_type: {self.time_shift_type!r}; allowed: 'linear', 'exponential'")
        if self.use_dynamic_shifting and self.shift != 1.0:
            raise ValueError(f"shift: {self.shift!r}; allowed: 1.0 when use_dynamic_shifting is on")
