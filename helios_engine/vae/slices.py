"""Bounds the memory of the VAE's activations: a chunk is worked on in temporal slices.

A layer that is causal in time gives the same result for a slice as for the whole video, if it remembers the frames that
it saw last. Those take memory too, so a slice is as long as the budget allows: the whole chunk where that fits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

ACTIVATION_BUDGET_BYTES = 18_000_000_000
"""In float32 a chunk of 384x640 fits as a whole (13.8 GB), one of 1280x768 by single latent frames (16.1 GB)."""
LARGEST_TENSOR = 2**31 - 1
"""Elements: cuDNN and torch's resampling kernels count in 32 bits."""
Carry = dict[nn.Module, torch.Tensor]
"""The frames that each layer saw last, from one slice of a video to the next."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a layer holds in memory, in elements for each pixel of its input.

    frame: at the peak, for each frame of its input, the input included. slice: besides, once for each slice. carried:
    kept between two slices. largest: the largest tensor, for each frame; it may have `slice` elements more.
    """

    frame: int
    slice: int = 0
    carried: int = 0
    largest: int

    def at(self, frames: int, pixels: int) -> "Footprint":
        """The same, for each latent frame and latent pixel; frames, pixels: how many of the layer's stand for one."""
        return Footprint(
            frame=self.frame * frames * pixels,
            slice=self.slice * pixels,
            carried=self.carried * pixels,
            largest=self.largest * frames * pixels,
        )


def slice_bytes(footprints: Iterable[Footprint], frames: int, pixels: int, itemsize: int, *, whole: bool) -> int:
    """Bytes of the activations at the peak. frames: latent frames of the slice. pixels: latent pixels of a frame.

    itemsize: bytes of an element. whole: the slice is the whole chunk, so nothing is carried.
    """
    layers = list(footprints)
    peak = max(layer.frame * frames + layer.slice for layer in layers)
    return (peak + (0 if whole else sum(layer.carried for layer in layers))) * pixels * itemsize


def longest_slice(
    footprints: Iterable[Footprint], frames: int, pixels: int, itemsize: int, budget_bytes: int | None
) -> int:
    """The most of `frames` latent frames that fit the budget and 32-bit indices at a time; 1 if none do.

    pixels: latent pixels of a frame. itemsize: bytes of an element. budget_bytes: None means no budget.
    """
    layers = list(footprints)

    def fits(count: int) -> bool:
        indexed = max(layer.largest * count + layer.slice for layer in layers) * pixels <= LARGEST_TENSOR
        taken = slice_bytes(layers, count, pixels, itemsize, whole=count == frames)
        return indexed and (budget_bytes is None or taken <= budget_bytes)

    return next((count for count in range(frames, 1, -1) if fits(count)), 1)


def even_parts(total: int, longest: int) -> list[int]:
    """Splits `total` into the fewest parts of at most `longest`. Parts differ by one at most, the larger ones first."""
    count = -(-total // longest)
    return [total // count + (index < total % count) for index in range(count)]
