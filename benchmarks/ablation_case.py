"""One optimisation with and without it."""

from collections.abc import Callable
from dataclasses import dataclass

DIT, DIT_COARSE, CHUNK = "DiT step, stage 2", "DiT step, stage 0", "DiT chunk [1,1,1]"
TEXT, DECODE = "text encode", "VAE decode"
COMMON_ROWS = {
    "prompt's keys and values once per prompt": DIT,
    "history's tokens once per chunk": DIT,
    "rotations once per shape": DIT,
    "prompt encoded at its own length": TEXT,
}
"""The rows of every device by name, and the part that is timed."""
GPU_ROWS = {
    "fused kernels in the DiT's blocks": DIT,
    "queries, keys and values in one product, on a GPU": DIT,
    "GELU as the end of its product": DIT,
    "attention kernel chosen by timing": DIT,
    "copies that the host does not wait for": CHUNK,
    "fused norm and activation in the VAE": DECODE,
    "channels last in the VAE, in float32": DECODE,
    "CUDA graphs": DIT_COARSE,
    "compiled blocks in place of the fused kernels": DIT,
    "8-bit linear layers": DIT,
    "VAE in bfloat16, channels last": DECODE,
    "doubling as a transposed convolution, on a GPU": DECODE,
}
"""Those of GPUs: what a machine without one records as not measured."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """with_it, without: the same work. `of`: the part that is timed. taken: whether the engine has it by default.

    exact: both compute the same within rounding; otherwise it is an option that trades precision.
    """

    name: str
    of: str
    with_it: Callable[[], object]
    without: Callable[[], object]
    taken: bool = True
    exact: bool = True
