"""Copies to the device that the host does not wait for, so that it stays ahead of the device within a chunk."""

import torch


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """x on the device. To a GPU from page-locked memory, which torch keeps until the copy has ended."""
    if device.type == "cpu" or x.device == device:
        return x.to(device)
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)
