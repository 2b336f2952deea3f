"""Operations and bytes of each part of the model, from its configuration. Products only; the rest is bytes that fusing
removes. A product reads its inputs and weights once and writes its result once.

Legend: D width, F feed-forward width, L tokens. 2 FLOP per multiply-add.
"""

from dataclasses import dataclass
from itertools import pairwise

from benchmarks.sizes import Size, TextShape
from helios_engine.configs import TransformerConfig, VAEConfig
from helios_engine.request import LATENT_FRAMES_PER_CHUNK
from helios_engine.text.embeds import MAX_PROMPT_TOKENS
from helios_engine.tokens import history_tokens, noisy_tokens


@dataclass(frozen=True, kw_only=True)
class Product:
    """One product: operations, and elements that it reads and writes. `attention`: of queries, keys and values."""

    flops: int
    elements: int
    attention: bool = False


def linear(tokens: int, inputs: int, outputs: int) -> Product:
    """A linear layer."""
    return Product(flops=2 * tokens * inputs * outputs, elements=tokens * (inputs + outputs) + inputs * outputs)


def attention(queries: int, keys: int, width: int, times: int = 1) -> Product:
    """softmax(q k) v over all heads."""
    elements = 2 * (queries + keys) * width
    return Product(flops=4 * queries * keys * width * times, elements=elements * times, attention=True)


def convolution(taps: int, inputs: int, outputs: int, pixels: int, stride: int = 1) -> Product:
    """pixels: of the result. stride: input pixels for each of them."""
    flops = 2 * taps * inputs * outputs * pixels
    return Product(flops=flops, elements=pixels * (inputs * stride + outputs) + taps * inputs * outputs)


def dit(config: TransformerConfig, history: int, noisy: int, text: int = MAX_PROMPT_TOKENS) -> list[Product]:
    """One forward, with the prompt's keys and values and the history's tokens made before it."""
    width, everything = config.inner_dim, history + noisy
    products = [linear(noisy, config.in_channels * 4, width), linear(noisy, width, config.out_channels * 4)]
    products += [linear(2, config.freq_dim, width), linear(2, width, width), linear(2, width, 6 * width)]
    for layer in range(config.num_layers):
        asking = noisy if layer == config.num_layers - 1 else everything
        products += [linear(asking, width, width)] * 2 + [linear(everything, width, width)] * 2
        products += [attention(asking, everything, width), attention(noisy, text, width)]
        products += [linear(noisy, width, width)] * 2
        products += [linear(asking, width, config.ffn_dim), linear(asking, config.ffn_dim, width)]
    return products


def text_encoder(shape: TextShape, length: int = MAX_PROMPT_TOKENS) -> list[Product]:
    """One prompt of `length` tokens."""
    inner = shape.heads * shape.d_kv
    block = [linear(length, shape.d_model, inner)] * 3 + [linear(length, inner, shape.d_model)]
    block += [attention(length, length, inner), *[linear(length, shape.d_model, shape.d_ff)] * 2]
    return [*block, linear(length, shape.d_ff, shape.d_model)] * shape.layers


def vae_decode(config: VAEConfig, height: int, width: int) -> list[Product]:
    """One chunk to pixels."""
    base = config.decoder_base_dim or config.base_dim
    widths = [base * mult for mult in reversed(config.dim_mult)]
    frames, h, w = LATENT_FRAMES_PER_CHUNK, height // 8, width // 8
    products = [convolution(1, config.z_dim, config.z_dim, frames * h * w)]
    products += [convolution(27, config.z_dim, widths[0], frames * h * w), *_middle(widths[0], frames, h * w)]
    incoming = widths[0]
    for channels, temporal in zip(widths, [*reversed(config.temperal_downsample), None], strict=True):
        for a, b in pairwise([incoming, *[channels] * (config.num_res_blocks + 1)]):
            products += _residual(a, b, frames * h * w)
        incoming = channels // 2
        if temporal:
            products.append(convolution(3, channels, 2 * channels, (frames - 1) * h * w))
            frames = 2 * frames - 1
        if temporal is not None:
            h, w = 2 * h, 2 * w
            products.append(convolution(9, channels, incoming, frames * h * w))
    return [*products, convolution(27, widths[-1], config.out_channels, frames * h * w)]


def vae_encode(config: VAEConfig, height: int, width: int) -> list[Product]:
    """One chunk of pixels to latents."""
    widths = [config.base_dim * mult for mult in config.dim_mult]
    frames, h, w = 4 * LATENT_FRAMES_PER_CHUNK - 3, height, width
    products = [convolution(27, config.in_channels, widths[0], frames * h * w)]
    incoming = widths[0]
    for channels, temporal in zip(widths, [*config.temperal_downsample, None], strict=True):
        for a, b in pairwise([incoming, *[channels] * config.num_res_blocks]):
            products += _residual(a, b, frames * h * w)
        incoming = channels
        if temporal is not None:
            h, w = h // 2, w // 2
            products.append(convolution(9, channels, channels, frames * h * w, stride=4))
        if temporal:
            products.append(convolution(3, channels, channels, (frames - 1) // 2 * h * w, stride=2))
            frames = (frames + 1) // 2
    latent = 2 * config.z_dim
    products += [*_middle(incoming, frames, h * w), convolution(27, incoming, latent, frames * h * w)]
    return [*products, convolution(1, latent, latent, frames * h * w)]


def parts(size: Size) -> dict[str, list[Product]]:
    """Every part of a chunk, by the name that rows of the benchmark know it under."""
    history = history_tokens(size.height, size.width)
    stages = {
        f"dit stage {stage}": dit(size.transformer, history, noisy_tokens(size.height, size.width, scale))
        for stage, scale in enumerate((4, 2, 1))
    }
    return {
        "text encode": text_encoder(size.text),
        **stages,
        "vae decode": vae_decode(size.vae, size.height, size.width),
        "vae encode": vae_encode(size.vae, size.height, size.width),
    }


def _residual(inputs: int, outputs: int, pixels: int) -> list[Product]:
    shortcut = [] if inputs == outputs else [convolution(1, inputs, outputs, pixels)]
    return [convolution(27, inputs, outputs, pixels), convolution(27, outputs, outputs, pixels), *shortcut]


def _middle(channels: int, frames: int, area: int) -> list[Product]:
    projections = [
        convolution(1, channels, 3 * channels, frames * area),
        convolution(1, channels, channels, frames * area),
    ]
    return _residual(channels, channels, frames * area) * 2 + [*projections, attention(area, area, channels, frames)]
