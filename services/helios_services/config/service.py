"""All settings."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError, model_validator

from helios_engine.options import DtypeName
from helios_services.config.deployments import DecoderConfig, DenoiserConfig, DispatcherConfig, TextEncoderConfig
from helios_services.config.section import ConfigError, Section
from helios_services.config.sections import (
    GatewayConfig,
    JobsConfig,
    MediaConfig,
    ModelConfig,
    RedisConfig,
    TracingConfig,
    WebhooksConfig,
)


class ServiceConfig(Section):
    """Everything."""

    state_dir: Path = Path("~/.local/state/helios")
    """Folder of the embedded Redis, finished videos and compiled code."""
    artifact_url: str = ""
    """fsspec URL of the folder for finished videos. Empty: `artifacts` under the state folder."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""
    model: ModelConfig = ModelConfig()
    redis: RedisConfig = RedisConfig()
    jobs: JobsConfig = JobsConfig()
    gateway: GatewayConfig = GatewayConfig()
    dispatcher: DispatcherConfig = DispatcherConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    decoder: DecoderConfig = DecoderConfig()
    media: MediaConfig = MediaConfig()
    tracing: TracingConfig = TracingConfig()
    webhooks: WebhooksConfig = WebhooksConfig()

    @model_validator(mode="after")
    def _adapters_per_request_need_plain_layers(self) -> "ServiceConfig":
        if self.model.loras and (self.denoiser.fp8 or self.denoiser.compile_mode != "off"):
            raise ValueError("model.loras must be empty with denoiser.fp8 or denoiser.compile; merged_loras may be set")
        return self

    @model_validator(mode="after")
    def _webhooks_are_a_tenants_own(self) -> "ServiceConfig":
        if self.gateway.api_keys_file and self.webhooks.urls:
            raise ValueError(
                "webhooks.urls must be empty with gateway.api_keys_file; webhooks.tenants names those of each tenant"
            )
        return self

    @model_validator(mode="after")
    def _8_bit_layers_of_a_gpu_give_bfloat16(self) -> "ServiceConfig":
        if self.denoiser.fp8 and self.denoiser.device == "cuda" and self.model.dtype == "float32":
            raise ValueError(f"model.dtype must be bfloat16 with denoiser.fp8 on a GPU, is {self.model.dtype}")
        return self

    @model_validator(mode="after")
    def _attention_in_16_bit(self) -> "ServiceConfig":
        if self.denoiser.attention in ("cudnn", "flash", "flash_attention_3") and self.model.dtype == "float32":
            raise ValueError(
                f"model.dtype must be bfloat16 with denoiser.attention {self.denoiser.attention}, is {self.model.dtype}"
            )
        return self

    @property
    def dtype(self) -> DtypeName:
        """`model.dtype`, where nobody has made a plan: bfloat16 if the denoiser is on a GPU."""
        if self.model.dtype != "auto":
            return self.model.dtype
        return "bfloat16" if self.denoiser.runs_on == "cuda" else "float32"

    @property
    def artifacts(self) -> str:
        """URL of the artifact folder."""
        return self.artifact_url or str(self.state_dir / "artifacts")

    @property
    def compile_cache(self) -> Path:
        """Folder for compiled code."""
        return self.state_dir / "compile-cache"

    @property
    def uploads(self) -> str:
        """URL of the folder for uploads."""
        return f"{self.artifacts}/uploads"


def with_variant(config: ServiceConfig, variant: str) -> ServiceConfig:
    """The configuration for a checkpoint of this variant. Raises ConfigError if another one is configured, or if a
    warm-up size is none of its sizes."""
    if "variant" in config.model.model_fields_set:
        check_variant(config, variant)
    try:
        model = ModelConfig.model_validate(config.model.model_dump(exclude_unset=True) | {"variant": variant})
    except ValidationError as error:
        raise ConfigError("; ".join(f"model: {each['msg']}" for each in error.errors())) from None
    return config.model_copy(update={"model": model})


def check_variant(config: ServiceConfig, variant: str) -> None:
    """Raises ConfigError unless the configured variant is the checkpoint's."""
    if config.model.variant != variant:
        raise ConfigError(
            f"model.variant: {config.model.variant!r} is not allowed; allowed: {variant!r}, which the checkpoint is"
        )
