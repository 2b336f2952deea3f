"""Linear layers in 8-bit floating point (e4m3): twice the rate of bfloat16 on GPUs from Ada and Hopper on.

Legend: M rows of the input (tokens), N outputs, D inputs. Scales are one for each row of the input, taken from its
values, and one for each row of the weight:
    x8 = x / s_x rounded to e4m3, s_x = max|x| / 448 over the row;  w8, s_w likewise
    y[m, n] = s_x[m] s_w[n] sum_d x8[m, d] w8[n, d] + bias[n]       accumulated in float32
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.model.attention import JoinedProjections
from helios_engine.model.block import Block
from helios_engine.model.transformer import HeliosTransformer
from helios_kernels.backend import refuse_gradient

LARGEST = 448.0
"""The largest number of e4m3."""
SMALLEST_SCALE = 1e-12
PROJECTIONS = ("attn1.to_q", "attn1.to_k", "attn1.to_v")
LAYERS = ("attn1.to_out.0", "attn2.to_q", "attn2.to_out.0", "ffn.net.0.proj", "ffn.net.2")
"""The layers of each block that become 8-bit, beside the projections, which may be joined."""
CAPABILITY = (8, 9)
"""The lowest compute capability of a GPU that has e4m3 products."""


def quantise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(M, D) to e4m3 (M, D) and scales (M, 1) float32."""
    scale = (x.abs().amax(dim=-1, keepdim=True).float() / LARGEST).clamp(min=SMALLEST_SCALE)
    return (x.float() / scale).to(torch.float8_e4m3fn), scale


def product_ref(
    x8: torch.Tensor, x_scale: torch.Tensor, w8: torch.Tensor, w_scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """x8 (M, D) times w8 (N, D), scaled, plus bias: (M, N) float32, on any device. The reference of the product."""
    return F.linear(x8.float(), w8.float()) * x_scale * w_scale.T + bias.float()


def check_device(device: torch.device, dtype: torch.dtype) -> None:
    """Raises ValueError for a GPU without e4m3 products, and on a GPU for a dtype other than bfloat16.

    A CPU computes with `product_ref`, for tests.
    """
    if device.type != "cuda":
        return
    if dtype != torch.bfloat16:  # with a scale for each row, results have no other type
        raise ValueError(f"fp8: True is not allowed with {dtype} on {device}; allowed: torch.bfloat16")
    if (found := torch.cuda.get_device_capability(device)) < CAPABILITY:
        needed = ".".join(map(str, CAPABILITY))
        raise ValueError(
            f"fp8: True is not allowed on {device}, of compute capability {found[0]}.{found[1]}; "
            f"allowed: from {needed} on"
        )


class Float8Linear(nn.Module):
    """A linear layer's weight in e4m3; inputs are quantised as they come."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        quantised, scale = quantise(weight)
        self.weight, self.scale, self.bias = (
            nn.Parameter(part, requires_grad=False) for part in (quantised, scale, bias)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) to (..., N) in x's dtype. Raises RuntimeError where a gradient is needed."""
        refuse_gradient("Float8Linear", x)
        result: torch.Tensor = self.product(*self.quantised(x.flatten(0, -2)), x.dtype).unflatten(0, x.shape[:-1])
        return result

    @staticmethod
    def quantised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as `quantise`; on a GPU in one pass over the rows."""
        return (_compiled_quantise() if x.is_cuda and not torch.compiler.is_compiling() else quantise)(x)

    def product(self, x8: torch.Tensor, x_scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Multiplies quantised rows x8 (M, D), of scales (M, 1), by the weight: (M, N) in `dtype`."""
        if not x8.is_cuda:
            return product_ref(x8, x_scale, self.weight, self.scale, self.bias).to(dtype)
        return torch._scaled_mm(
            x8, self.weight.t(), x_scale, self.scale.t(), bias=self.bias, out_dtype=dtype, use_fast_accum=True
        )


@torch.no_grad()
def quantise_linears(transformer: HeliosTransformer) -> None:
    """Turns the blocks' linear layers over tokens into 8-bit ones, in place.

    To be called after adapters are merged and projections joined. The other layers (embeddings, modulation, the
    prompt's keys and values, output) stay: they are small or run once per prompt. Raises ValueError for a device or a
    dtype that has no such products.
    """
    check_device(transformer.proj_out.weight.device, transformer.proj_out.weight.dtype)
    for block in transformer.blocks:
        assert isinstance(block, Block)
        joined = block.attn1.joined
        names = (*PROJECTIONS, *LAYERS) if joined is None else LAYERS
        for name in names:
            block.set_submodule(name, _quantised(block.get_submodule(name)))
        if isinstance(joined, JoinedProjections):
            block.attn1.joined = Float8Linear(joined.weight, joined.bias)
            for name in PROJECTIONS:
                block.set_submodule(name, nn.Identity())  # the weights, views of the joined ones, are let go


def _quantised(layer: nn.Module) -> Float8Linear:
    assert isinstance(layer, nn.Linear)
    assert layer.bias is not None
    return Float8Linear(layer.weight, layer.bias)


@lru_cache(maxsize=1)
def _compiled_quantise() -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """`quantise` in one pass over the rows instead of five. Made when it is needed: the compiler is slow to import."""
    return torch.compile(quantise, dynamic=True)
