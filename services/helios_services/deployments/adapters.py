"""Adapters are checked before anything starts: in a replica, one that is missing costs minutes and a traceback."""

import torch

from helios_engine.checkpoint import open_checkpoint
from helios_engine.errors import CheckpointError
from helios_engine.lora import load_adapter
from helios_engine.model.transformer import HeliosTransformer
from helios_services.config import ConfigError, ServiceConfig


def check_adapters(config: ServiceConfig) -> None:
    """Raises ConfigError for an adapter that is missing, cannot be read or does not fit the model."""
    files = {f"model.loras.{name}": file for name, file in config.model.loras.items()}
    files |= {f"model.merged_loras.{file}": file for file in config.model.merged_loras}
    if not files:
        return
    with torch.device("meta"):  # shapes, no weights
        transformer = HeliosTransformer(open_checkpoint(config.model.checkpoint).transformer)
    for setting, file in files.items():
        try:
            load_adapter(file, transformer)
        except CheckpointError as error:
            raise ConfigError(f"{setting}: {error}") from None
