"""Which attention kernel runs on a GPU: the named one, or for each shape the one that was fastest when it first came.

Legend: B batch, L tokens, H heads, K head width. The operators are those that `F.scaled_dot_product_attention` itself
chooses from. FlashAttention-3 takes part where it is installed (`flash_attn_interface`, Hopper GPUs).
"""

import statistics
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from helios_engine.options import AttentionKernel
from helios_kernels.backend import needs_gradient, on_device

try:
    from flash_attn_interface import flash_attn_func
except ImportError:
    flash_attn_func = None

AttendFn = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Queries, keys and values, (B, L, H, K) each with their own L, to the queries' attention of the same shape."""
SecondsFn = Callable[[Callable[[], object]], float]
Shape = tuple[torch.Size, torch.Size, torch.dtype, torch.device]

RUNS = 5
MARGIN = 0.05
"""A candidate replaces those before it only if it takes less time by more than this share: near ties go one way."""
LARGEST_ERROR = 0.05
"""Relative difference to torch's choice beyond which a kernel is not trusted; bfloat16 kernels differ by some 0.005."""


def torchs_choice(q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(K)) v for each head, by the kernel that torch chooses."""
    q_BHLK, k_BHLK, v_BHLK = (t.transpose(1, 2) for t in (q_BLHK, k_BLHK, v_BLHK))
    return F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK).transpose(1, 2)


def cudnn(q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> torch.Tensor:
    """The same by cuDNN's kernel."""
    q_BHLK, k_BHLK, v_BHLK = (t.transpose(1, 2) for t in (q_BLHK, k_BLHK, v_BLHK))
    backward = needs_gradient(q_BLHK, k_BLHK, v_BLHK)  # which reads the sums of exponentials
    out: torch.Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(q_BHLK, k_BHLK, v_BHLK, None, backward)[0]
    return out.transpose(1, 2)


def flash(q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> torch.Tensor:
    """The same by FlashAttention-2, as torch brings it."""
    q_BHLK, k_BHLK, v_BHLK = (t.transpose(1, 2) for t in (q_BLHK, k_BLHK, v_BLHK))
    out: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q_BHLK, k_BHLK, v_BHLK)[0]
    return out.transpose(1, 2)


def efficient(q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> torch.Tensor:
    """The same by xFormers' memory-efficient kernel, as torch brings it."""
    q_BHLK, k_BHLK, v_BHLK = (t.transpose(1, 2) for t in (q_BLHK, k_BLHK, v_BLHK))
    backward = needs_gradient(q_BLHK, k_BLHK, v_BLHK)  # as above
    out = torch.ops.aten._scaled_dot_product_efficient_attention(q_BHLK, k_BHLK, v_BHLK, None, backward)[0]
    attended: torch.Tensor = out.transpose(1, 2)
    return attended


def flash_attention_3(q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> torch.Tensor:
    """The same by FlashAttention-3."""
    out = flash_attn_func(q_BLHK, k_BLHK, v_BLHK)
    attended: torch.Tensor = out[0] if isinstance(out, tuple) else out  # some releases return the normaliser as well
    return attended


def gpu_seconds(work: Callable[[], object]) -> float:
    """Median time of the work on the current GPU, after a warm-up."""
    work()
    events = []
    for _ in range(RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    milliseconds = [float(start.elapsed_time(end)) for start, end in events]
    return statistics.median(milliseconds) / 1e3


def candidates() -> dict[str, AttendFn]:
    """The kernels by name, in the order of preference; torch's own choice comes first."""
    named: dict[str, AttendFn] = {"torch": torchs_choice, "cudnn": cudnn, "flash": flash, "efficient": efficient}
    return named | ({"flash_attention_3": flash_attention_3} if flash_attn_func is not None else {})


def relative_error(attended: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference over that of `expected`; NaN where a result is not finite, which passes no bound."""
    return float((attended.float() - expected.float()).norm() / expected.float().norm())


class Chooser:
    """Times the candidates on the first tensors of each shape. choices, seconds: what it found.

    A candidate that raises, or whose result is not the first candidate's, is left out for that shape. Raises nothing
    itself: the first candidate is what remains.
    """

    def __init__(self, named: Mapping[str, AttendFn], seconds: SecondsFn) -> None:
        self._named, self._seconds = dict(named), seconds
        self.choices: dict[Shape, str] = {}
        self.seconds: dict[Shape, dict[str, float]] = {}

    def fastest(self, q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> AttendFn:
        """The candidate for tensors like these."""
        shape = (q_BLHK.shape, k_BLHK.shape, q_BLHK.dtype, q_BLHK.device)
        if shape not in self.choices:
            if q_BLHK.is_cuda and torch.cuda.is_current_stream_capturing():
                return next(iter(self._named.values()))  # nothing can be timed here
            with on_device(q_BLHK):
                self.seconds[shape] = self._measured(q_BLHK, k_BLHK, v_BLHK)
            self.choices[shape] = preferred(self.seconds[shape])
        return self._named[self.choices[shape]]

    def fastest_for(
        self, q_shape: torch.Size, k_shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> AttendFn:
        """The candidate for such tensors, for callers that have none yet."""
        name = self.choices.get((q_shape, k_shape, dtype, device))
        if name is not None:
            return self._named[name]
        q_BLHK, k_BLHK, v_BLHK = (
            torch.randn(shape, dtype=dtype, device=device) for shape in (q_shape, k_shape, k_shape)
        )
        return self.fastest(q_BLHK, k_BLHK, v_BLHK)

    def _measured(self, *qkv: torch.Tensor) -> dict[str, float]:
        first, *others = self._named
        expected = self._named[first](*qkv)
        measured = {first: self._seconds(lambda: self._named[first](*qkv))}
        for name in others:
            attend = self._named[name]
            try:
                if relative_error(attend(*qkv), expected) < LARGEST_ERROR:
                    measured[name] = self._seconds(lambda attend=attend: attend(*qkv))  # type: ignore[misc]
            except (RuntimeError, NotImplementedError):  # this GPU, shape or dtype is none of its own
                continue
        return measured


def preferred(seconds: Mapping[str, float], margin: float = MARGIN) -> str:
    """The first name, unless a later one is faster by more than the margin."""
    first, *others = seconds
    for name in others:
        if seconds[name] < (1.0 - margin) * seconds[first]:
            first = name
    return first


CHOOSER = Chooser(candidates(), gpu_seconds)
"""The process's chooser: what it finds holds for one GPU, and a process has one."""


def sdpa(q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> torch.Tensor:
    """Attention on one device: softmax(q k^T / sqrt(K)) v for each head.

    On a GPU by the fastest kernel, or where a gradient is needed by torch's choice: only forwards are timed.
    """
    if q_BLHK.is_cuda and not torch.compiler.is_compiling() and not needs_gradient(q_BLHK, k_BLHK, v_BLHK):
        return CHOOSER.fastest(q_BLHK, k_BLHK, v_BLHK)(q_BLHK, k_BLHK, v_BLHK)
    return torchs_choice(q_BLHK, k_BLHK, v_BLHK)


def attention_by(
    name: AttentionKernel, heads: int, head_width: int, dtype: torch.dtype, device: torch.device
) -> AttendFn:
    """The attention of this name for such tensors. Raises ValueError if it cannot compute them here."""
    if name == "auto":
        return sdpa
    named = candidates()
    if name not in named or not _runs(named[name], heads, head_width, dtype, device):
        allowed = [repr(other) for other, attend in named.items() if _runs(attend, heads, head_width, dtype, device)]
        raise ValueError(
            f"attention: {name!r} is not allowed with {dtype} on {device}; allowed: 'auto', {', '.join(allowed)}"
        )
    return named[name]


@torch.inference_mode()
def _runs(attend: AttendFn, heads: int, head_width: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernel takes such tensors and computes attention of them: some take float32 and return garbage."""
    generator = torch.Generator().manual_seed(0)
    q_BLHK, k_BLHK, v_BLHK = (
        torch.randn(1, 128, heads, head_width, generator=generator).to(device, dtype) for _ in range(3)
    )
    try:
        with on_device(q_BLHK):
            return relative_error(attend(q_BLHK, k_BLHK, v_BLHK), torchs_choice(q_BLHK, k_BLHK, v_BLHK)) < LARGEST_ERROR
    except (RuntimeError, NotImplementedError):
        return False
