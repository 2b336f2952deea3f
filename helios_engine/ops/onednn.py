"""What oneDNN does on CPUs and torch's public operators do not offer: faster matrix products, and ones that add.

These are the operators that torch.compile's CPU programs call; they are not public, hence one file.
Legend: N pictures, C channels, h/w height and width.
"""

import torch
import torch.nn.functional as F
from torch import nn


def usable(x: torch.Tensor) -> bool:
    """Whether products of this tensor can go here: float32 on a CPU with oneDNN, and no gradients asked for.

    Not while torch.compile traces: it has its own way to them.
    """
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_grad_enabled()
    )


class Linear(nn.Linear):
    """nn.Linear; on CPUs by oneDNN, which is faster there than the library that torch asks by default."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        if usable(input):
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
            return out
        return super().forward(input)


def add_convolved_(out_NChw: torch.Tensor, x_NChw: torch.Tensor, weight: torch.Tensor, padding: list[int]) -> None:
    """out += conv2d(x, weight), in place: no second output to write and to read again."""
    torch.ops.mkldnn._convolution_pointwise_.binary(
        out_NChw, x_NChw, weight, None, padding, [1, 1], [1, 1], 1, "add", 1.0, None, [], ""
    )


def convolve_over_time(
    frames: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: list[int], before: int = 0
) -> torch.Tensor:
    """Causal 3-D convolution of one video's frames (T, C, h, w), channels last, as 2-D ones summed over the taps.

    weight: (C', C, taps, kh, kw). before: leading frames that are only looked back at; there are zeros before the first
    frame. torch's 3-D convolution has a slow path for small inputs, needs a copy of the input
    with the frames before the first one, and loses the layout that oneDNN is fastest in.
    """
    *earlier, present = weight.unbind(2)
    out = F.conv2d(frames[before:], present.contiguous(memory_format=torch.channels_last), bias, padding=padding)
    for back, tap in enumerate(reversed(earlier), 1):
        first = max(back - before, 0)  # the first output that looks so far back
        if first < len(out):
            add_convolved_(
                out[first:],
                frames[before + first - back : -back],
                tap.contiguous(memory_format=torch.channels_last),
                padding,
            )
    return out
