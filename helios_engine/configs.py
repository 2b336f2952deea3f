"""Component configurations, field for field as the published checkpoints' JSON files name them."""

from dataclasses import dataclass
from itertools import pairwise

PYRAMID_STAGES = 3
HISTORY_FRAMES = (16, 2, 1)
"""Latent frames of long, mid and short memory. The short memory gets one more: the video's first latent frame (the
anchor), or where that is not kept, one more recent frame."""


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
    """scheduler/scheduler_config.json of `HeliosDMDScheduler`; the last four set the dynamic shift."""

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
        self._allow("stages", self.stages, self._stage_counts())
        bounds = self.stage_range
        if (
            len(bounds) != self.stages + 1
            or any(a >= b for a, b in pairwise(bounds))
            or bounds[0] < 0
            or bounds[-1] > 1
        ):
            raise ValueError(f"stage_range: {bounds!r}; allowed: {self.stages + 1} increasing numbers from 0 to 1")
        if self.stages > 1 and self.gamma > 1 / 3:
            raise ValueError(f"gamma: {self.gamma!r}; allowed: at most 1/3, beyond which block noise has no covariance")
        self._allow("prediction_type", self.prediction_type, ("flow_prediction",))
        self._allow("use_flow_sigmas", self.use_flow_sigmas, (True,))
        self._allow("time_shift_type", self.time_shift_type, ("linear", "exponential"))
        if self.use_dynamic_shifting and self.shift != 1.0:
            raise ValueError(f"shift: {self.shift!r}; allowed: 1.0 when use_dynamic_shifting is on")

    def _stage_counts(self) -> tuple[int, ...]:
        return (PYRAMID_STAGES,)

    @staticmethod
    def _allow(name: str, value: object, allowed: tuple[object, ...]) -> None:
        if value not in allowed:
            raise ValueError(f"{name}: {value!r}; allowed: {', '.join(map(repr, allowed))}")


@dataclass(frozen=True, kw_only=True)
class SolverConfig(SchedulerConfig):
    """scheduler/scheduler_config.json of `HeliosScheduler` (Helios-Base, one pyramid stage, and Helios-Mid, three)."""

    time_shift_type: str = "exponential"
    scheduler_type: str = "unipc"
    solver_order: int = 2
    solver_type: str = "bh2"
    lower_order_final: bool = True
    disable_corrector: tuple[int, ...] = ()
    predict_x0: bool = True
    thresholding: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._allow("scheduler_type", self.scheduler_type, ("unipc", "euler"))
        self._allow("solver_order", self.solver_order, (1, 2, 3))
        self._allow("predict_x0", self.predict_x0, (True,))  # the reference has no other conversion of a flow
        self._allow("thresholding", self.thresholding, (False,))
        if self.solver_type not in ("bh1", "bh2"):
            # the reference takes these names of other solvers, and means bh2
            self._allow("solver_type", self.solver_type, ("bh1", "bh2", "midpoint", "heun", "logrho"))
            object.__setattr__(self, "solver_type", "bh2")

    def _stage_counts(self) -> tuple[int, ...]:
        return (1, PYRAMID_STAGES)
