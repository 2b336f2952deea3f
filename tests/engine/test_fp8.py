"""8-bit linear layers: the arithmetic and its error bounds, which layers take it, and which devices."""

import pytest
import torch
import torch.nn.functional as F

from engine.test_acceleration import error, model, prompt, request
from helios_engine.accelerate.fp8 import Float8Linear, check_device, quantise, quantise_linears
from helios_engine.configs import SchedulerConfig
from helios_engine.model.attention import JoinedProjections
from helios_engine.model.block import Block
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState

HALF_STEP = 2**-4
"""e4m3 has three bits behind the point: rounding errs by at most 1/16 of a value that is not among the smallest."""
SMALLEST_STEP = 2**-10
"""Half of the smallest subnormal, as share of the scale."""


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Rows of very different sizes, one of them zero."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    x *= torch.logspace(-6, 6, count)[:, None]
    x[count // 2] = 0
    return x


def test_each_row_keeps_its_own_precision() -> None:
    x = rows(9, 64)
    x8, scale = quantise(x)
    restored = x8.float() * scale
    bound = HALF_STEP * x.abs() + SMALLEST_STEP * scale
    assert ((restored - x).abs() <= bound).all()
    assert torch.equal(x8.float().abs().amax(1) == 448.0, x.abs().amax(1) > 0)  # the whole range is used
    one_scale = x / (x.abs().max() / 448)  # a scale for all rows would lose the small ones
    assert not ((one_scale.to(torch.float8_e4m3fn).float() * (x.abs().max() / 448) - x).abs() <= bound).all()


def test_products_are_within_the_bound_of_their_factors() -> None:
    x, weight, bias = rows(7, 48), rows(11, 48, seed=1), rows(1, 11, seed=2)[0]
    layer = Float8Linear(weight, bias)
    actual = layer(x.view(1, 7, 48))[0]
    # |x8 w8 - x w| <= (2 r + r^2) |x| |w| with r the relative error of each factor, and the smallest steps
    relative = 2 * HALF_STEP + HALF_STEP**2
    x_step, w_step = (SMALLEST_STEP * quantise(factor)[1] for factor in (x, weight))
    magnitudes = F.linear(x.abs(), weight.abs())
    smallest = 1.1 * (x_step * weight.abs().sum(1) + x.abs().sum(1, keepdim=True) * w_step.T + 48 * x_step * w_step.T)
    difference = (actual - F.linear(x, weight, bias)).abs()
    assert (difference <= relative * magnitudes + smallest + 1e-5 * actual.abs()).all()
    assert difference.max() > 0


def test_a_chunk_in_8_bits_is_close_to_one_in_float32() -> None:
    latents = []
    for fp8 in (False, True):
        transformer = model()
        if fp8:
            quantise_linears(transformer)
        denoiser = Denoiser(transformer, SchedulerConfig())
        latents.append(denoiser.denoise_chunk(DenoiseState.initial(request()), prompt())[0])
    plain, quantised = latents
    assert 1e-4 < error(quantised, plain) < 0.1


def test_joined_projections_are_the_three_layers() -> None:
    x = torch.randn(1, 5, 48, generator=torch.Generator().manual_seed(1))
    joined, separate = model(), model()
    joined.join_projections()
    block = joined.blocks[0]
    assert isinstance(block, Block)
    assert isinstance(block.attn1.joined, JoinedProjections)
    assert block.attn1.joined.weight.grad_fn is None  # no graph that keeps the separate weights alive
    results = []
    for transformer in (joined, separate):
        quantise_linears(transformer)
        results.append(transformer.blocks[0].attn1.projections(x, 2))  # type: ignore[operator, union-attr]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert not hasattr(joined.blocks[0].attn1.to_q, "weight")  # type: ignore[union-attr]


def test_an_older_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = (8, 6)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with pytest.raises(ValueError, match=r"fp8: True is not allowed on cuda, of compute capability 8\.6; .* from 8\.9"):
        check_device(torch.device("cuda"), torch.bfloat16)
    capability = (9, 0)
    check_device(torch.device("cuda"), torch.bfloat16)


def test_gpus_have_8_bit_products_in_bfloat16_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for dtype in (torch.float32, torch.float16):
        with pytest.raises(
            ValueError, match=rf"fp8: True is not allowed with {dtype} on cuda; allowed: torch.bfloat16"
        ):
            check_device(torch.device("cuda"), dtype)
        check_device(torch.device("cpu"), dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_product_is_the_references() -> None:
    x, weight, bias = (t.cuda().bfloat16() for t in (torch.randn(64, 256), torch.randn(512, 256), torch.randn(512)))
    layer = Float8Linear(weight, bias)
    reference = layer.cpu()(x.cpu().float())
    assert error(layer.cuda()(x).cpu().float(), reference) < 0.01
