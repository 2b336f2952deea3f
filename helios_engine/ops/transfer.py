"""Copies between host and device through page-locked memory: those to the device do not make the host wait, so that it
stays ahead of the device within a chunk."""

import torch


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """x on the device. To a GPU from page-locked memory, which torch keeps until the copy has ended."""
    if device.type == "cpu" or x.device == device:
        return x.to(device)
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


def to_host(x: torch.Tensor) -> torch.Tensor:
    """x in host memory, all of it there on return. The thread sleeps meanwhile: a core is free for another one."""
    if x.device.type != "cuda":
        return x.cpu()
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)
    copied.record(torch.cuda.current_stream(x.device))
    copied.synchronize()
    return host
