"""The VAE as it is trained is the VAE as it is served; its objective means what it says."""

import pytest
import torch

from helios_engine.configs import VAEConfig
from helios_training.errors import TrainingError
from helios_training.vae.autoencoder import Autoencoder, inflatable_
from helios_training.vae.batches import PixelBatch, PixelDraw, draw_batch
from helios_training.vae.objective import VAEObjective, kl_divergence, psnr, reconstruction

MEAN, STD = tuple(0.1 * n for n in range(16)), tuple(1 + 0.1 * n for n in range(16))


@pytest.fixture
def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    config = VAEConfig(base_dim=8, dim_mult=(1, 1, 2, 2), num_res_blocks=1, latents_mean=MEAN, latents_std=STD)
    return Autoencoder(config)


def pixels(frames: int) -> torch.Tensor:
    # of seed 1 one pixel's channels cancel to 1e-6: its norm then depends on the order of sums
    return torch.rand(2, 3, frames, 16, 24, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("frames", [1, 9])
def test_both_halves_compute_what_the_engine_computes(autoencoder: Autoencoder, frames: int) -> None:
    x = pixels(frames)
    with torch.no_grad():
        mean, log_variance = autoencoder.encode(x)
        served_mean, served_std = autoencoder.halves["encoder"](x)
        decoded = autoencoder.decode(mean)
        served = autoencoder.halves["decoder"](served_mean)
    shift, scale = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close((mean - shift) / scale, served_mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close((0.5 * log_variance).exp() / scale, served_std, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(decoded, served, atol=1e-4, rtol=1e-4)  # neither clamps: gradients pass


def test_decoding_does_not_clamp(autoencoder: Autoencoder) -> None:
    with torch.no_grad():
        dict(autoencoder.named_parameters())["halves.decoder.decoder.conv_out.bias"].fill_(3.0)
        decoded = autoencoder.decode(torch.zeros(1, 16, 1, 2, 3))
    assert decoded.min() > 1.0


def test_all_parameters_get_gradients_from_a_clip(autoencoder: Autoencoder) -> None:
    mean, log_variance = autoencoder.encode(pixels(9))
    (autoencoder.decode(mean).square().sum() + log_variance.square().sum()).backward()
    assert [name for name, value in autoencoder.named_parameters() if value.grad is None] == []


def test_an_inflatable_vae_treats_a_clip_as_its_frames(autoencoder: Autoencoder) -> None:
    inflatable_(autoencoder)
    x = pixels(9)
    with torch.no_grad():
        of_clip, _ = autoencoder.encode(x)
        of_frames = torch.cat([autoencoder.encode(x[:, :, n : n + 1])[0] for n in (0, 4, 8)], dim=2)
        decoded = autoencoder.decode(of_clip)
        of_last = autoencoder.decode(of_clip[:, :, 2:])
    torch.testing.assert_close(of_clip, of_frames, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(decoded[:, :, 5:], of_last.expand(-1, -1, 4, -1, -1), atol=1e-5, rtol=1e-4)


def test_the_object_weighs_five_times_as_much() -> None:
    x = torch.zeros(1, 3, 1, 16, 16)
    mask = torch.zeros(1, 1, 1, 16, 16)
    mask[..., 8:, :] = 1.0
    off_object, off_background = x.clone(), x.clone()
    off_object[..., 12, :] = 1.0
    off_background[..., 2, :] = 1.0
    ratio = reconstruction(off_object, x, mask) / reconstruction(off_background, x, mask)
    assert float(ratio) == pytest.approx(5.0)
    uniform = reconstruction(x + 0.5, x, mask)
    assert float(uniform) == pytest.approx(0.5**2 + 0.15 * 0.5)


def test_kl_and_psnr_are_what_they_are_called() -> None:
    mean, log_variance = torch.tensor([0.7, -0.2]), torch.tensor([0.3, -1.0])
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    ).mean()
    torch.testing.assert_close(kl_divergence(mean, log_variance), exact)
    assert float(psnr(torch.tensor(4e-2))) == pytest.approx(20.0)


def test_a_frozen_encoder_gets_no_gradients(autoencoder: Autoencoder) -> None:
    batch = PixelBatch(pixels=pixels(9), mask=torch.ones(2, 1, 9, 16, 24), noise=torch.randn(2, 32, 3, 2, 3))
    loss, _ = VAEObjective(autoencoder, decoder_only=True)(batch)
    loss.backward()
    assert all(value.grad is None for value in autoencoder.halves["encoder"].parameters())
    assert all(value.grad is not None for value in autoencoder.halves["decoder"].parameters())


def test_batches_are_functions_of_seed_and_step_and_windows_hold_objects() -> None:
    draw = PixelDraw(samples=8, frames=1, crop=48)
    one, again, other = (draw_batch(0, step, draw, height=64, width=128) for step in (3, 3, 4))
    assert torch.equal(one.pixels, again.pixels)
    assert torch.equal(one.noise, again.noise)
    assert not torch.equal(one.pixels, other.pixels)
    assert one.pixels.shape == (8, 3, 1, 48, 48)
    assert one.pixels.abs().max() <= 1.0
    with_object = sum(
        float((draw_batch(1, step, draw, height=64, width=128).mask.amax(dim=(1, 2, 3, 4)) > 0.5).float().mean())
        for step in range(10)
    )
    assert with_object / 10 >= 0.7


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"frames": 13}, "frames: 13 is not allowed; allowed: 1 or 33"), ({"frames": 1, "crop": 20}, "crop: 20")],
)
def test_foreign_draws_are_named(fields: dict[str, int], named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        PixelDraw(samples=1, **fields)
