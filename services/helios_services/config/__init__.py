"""Configuration of every component: one YAML file (`--config` or HELIOS_CONFIG) and environment variables.

Precedence: environment over file over defaults. A value of the tree is named in the environment by its path,
for example HELIOS_GATEWAY__PORT=50051 or HELIOS_MODEL__CHECKPOINT=/models/Helios-Distilled. HELIOS_REDIS_URL and
HELIOS_STATE_DIR are read as they are.
"""

from helios_services.config.deployments import (
    AutoscalingConfig,
    DecoderConfig,
    DenoiserConfig,
    DeploymentConfig,
    DispatcherConfig,
    ParallelConfig,
    TextEncoderConfig,
)
from helios_services.config.load import load_config
from helios_services.config.section import ConfigError, Port, PositiveFloat, PositiveInt, Section
from helios_services.config.sections import (
    GatewayConfig,
    JobsConfig,
    MediaConfig,
    ModelConfig,
    RedisConfig,
    TracingConfig,
    WebhookPlaces,
    WebhooksConfig,
)
from helios_services.config.service import ServiceConfig, check_variant, with_variant

__all__ = [
    "AutoscalingConfig",
    "ConfigError",
    "DecoderConfig",
    "DenoiserConfig",
    "DeploymentConfig",
    "DispatcherConfig",
    "GatewayConfig",
    "JobsConfig",
    "MediaConfig",
    "ModelConfig",
    "ParallelConfig",
    "Port",
    "PositiveFloat",
    "PositiveInt",
    "RedisConfig",
    "Section",
    "ServiceConfig",
    "TextEncoderConfig",
    "TracingConfig",
    "WebhookPlaces",
    "WebhooksConfig",
    "check_variant",
    "load_config",
    "with_variant",
]
