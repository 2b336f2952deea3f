"""Which prompts' keys and values are found again: those of the same bits and adapters, of the last few prompts."""

from collections.abc import Callable

import pytest
import torch

from helios_engine.model.attention import TextKeysValues
from helios_engine.sampling.prompt_cache import Adapters, PromptCache

STYLE: Adapters = (("digest", 0.5),)


class Encoder:
    """Makes keys and values, and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> list[TextKeysValues]:
        self.made += 1
        return [TextKeysValues(torch.full((1,), float(self.made)), torch.zeros(1))]


def embeds(seed: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(1, 512, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_equal_embeddings_are_encoded_once() -> None:
    cache, encode = PromptCache(4), Encoder()
    first = cache.get(embeds(1), (), encode)
    strided = embeds(1).mT.contiguous().mT
    assert cache.get(embeds(1), (), encode) is first
    assert cache.get(strided, (), encode) is first
    assert encode.made == 1


def _last_value(x: torch.Tensor) -> torch.Tensor:
    x[0, -1, -1] += 1
    return x


def _sign_of_zero(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x == 0, -x, x)


@pytest.mark.parametrize(
    "change",
    [
        _last_value,
        _sign_of_zero,
        lambda x: torch.cat([x, x]),
        lambda x: x.view(1, 256, 16),
        lambda x: x.view(torch.float16),
    ],
)
def test_other_embeddings_are_others(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    cache, encode = PromptCache(4), Encoder()
    plain = embeds(1)
    plain[0, 3] = 0
    first = cache.get(plain, (), encode)
    assert cache.get(change(plain.clone()), (), encode) is not first
    assert cache.get(plain, STYLE, encode) is not first  # adapters change keys and values as well
    assert cache.get(plain, (), encode) is first


def test_not_a_number_is_found_again() -> None:
    cache, encode = PromptCache(1), Encoder()
    cache.get(torch.full((1, 512, 8), float("nan")), (), encode)
    cache.get(torch.full((1, 512, 8), float("nan")), (), encode)
    assert encode.made == 1


def test_embeddings_that_the_caller_changes_are_not_found() -> None:
    cache, encode = PromptCache(4), Encoder()
    given = embeds(1)
    first = cache.get(given, (), encode)
    given.add_(1)
    assert cache.get(given, (), encode) is not first
    assert cache.get(embeds(1), (), encode) is first


def test_the_prompt_unused_for_longest_goes_before_another_is_made() -> None:
    cache, encode = PromptCache(2), Encoder()
    one, two = (cache.get(embeds(seed), (), encode) for seed in (1, 2))
    assert cache.get(embeds(1), (), encode) is one

    def third() -> list[TextKeysValues]:
        assert [entry.text for entry in cache._entries] == [one]
        return encode()

    cache.get(embeds(3), (), third)
    assert cache.get(embeds(1), (), encode) is one
    assert cache.get(embeds(2), (), encode) is not two
    cache.clear()
    assert cache.get(embeds(2), (), encode) is not one
    assert encode.made == 5


@pytest.mark.parametrize("entries", [0, -1])
def test_a_cache_that_holds_nothing_is_refused(entries: int) -> None:
    with pytest.raises(ValueError, match=f"prompt_cache_entries: {entries} is not allowed; allowed: an integer from 1"):
        PromptCache(entries)
