"""Small GPUs: the DiT's blocks stay in host memory and visit the device within a budget of bytes."""

from helios_engine.offload.blocks import BlockOffload, offload_blocks

__all__ = ["BlockOffload", "offload_blocks"]
