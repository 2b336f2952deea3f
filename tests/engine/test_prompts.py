"""Which prompts a chunk sees: a schedule's weights, by hand and as properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helios_engine.prompts import ScheduledPrompt, prompt_weights
from helios_engine.text.embeds import chunk_embeds


def entry(chunk: int, over: int = 3) -> ScheduledPrompt:
    return ScheduledPrompt(chunk_index=chunk, prompt=f"from {chunk}", interpolation_chunks=over)


def test_one_prompt_takes_over_linearly_starting_with_no_change() -> None:
    weights = [prompt_weights([entry(2)], chunk) for chunk in range(6)]
    assert weights == [{0: 1.0}, {0: 1.0}, {0: 1.0}, {0: 0.5, 1: 0.5}, {1: 1.0}, {1: 1.0}]


@pytest.mark.parametrize(("over", "expected"), [(0, {1: 1.0}), (1, {0: 1.0}), (2, {0: 1.0})])
def test_short_takeovers(over: int, expected: dict[int, float]) -> None:
    assert prompt_weights([entry(4, over)], 4) == expected
    assert prompt_weights([entry(4, over)], 5) == {1: 1.0}


def test_a_prompt_during_a_blend_starts_from_where_the_blend_stands() -> None:
    schedule = [entry(0, 5), entry(2, 3)]
    assert prompt_weights(schedule, 2) == prompt_weights(schedule[:1], 2) == {0: 0.5, 1: 0.5}
    assert prompt_weights(schedule, 3) == {0: 0.25, 1: 0.25, 2: 0.5}
    assert prompt_weights(schedule, 4) == {2: 1.0}


def test_of_two_prompts_at_one_chunk_the_newer_wins() -> None:
    assert prompt_weights([entry(1, 0), entry(1, 0)], 1) == {2: 1.0}
    assert prompt_weights([entry(1, 3), entry(1, 3)], 2) == {0: 0.5, 2: 0.5}


schedules = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)), max_size=6).map(
    lambda pairs: [entry(chunk, over) for chunk, over in sorted(pairs, key=lambda pair: pair[0])]
)


@given(schedules, st.integers(0, 40))
def test_weights_are_a_convex_combination_and_the_newest_wins_in_the_end(
    schedule: list[ScheduledPrompt], chunk: int
) -> None:
    weights = prompt_weights(schedule, chunk)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert all(0.0 < weight <= 1.0 for weight in weights.values())
    if schedule and chunk >= max(each.chunk_index + each.interpolation_chunks for each in schedule):
        assert weights == {len(schedule): 1.0}


@given(schedules, st.integers(0, 20), st.integers(0, 8))
def test_what_is_made_does_not_depend_on_later_prompts(schedule: list[ScheduledPrompt], chunk: int, over: int) -> None:
    later = [*schedule, entry(max([chunk + 1, *(each.chunk_index for each in schedule)]), over)]
    assert prompt_weights(later, chunk) == prompt_weights(schedule, chunk)


def test_blended_tokens_are_the_weighted_sum_of_padded_prompts() -> None:
    tokens = {number: torch.randn(length, 4) for number, length in enumerate((3, 5, 2))}
    assert chunk_embeds(tokens, [entry(2)], 0) is tokens[0]
    blended = chunk_embeds(tokens, [entry(0, 5), entry(2, 3)], 3)
    padded = [torch.nn.functional.pad(part, (0, 0, 0, 5 - len(part))) for part in tokens.values()]
    assert torch.allclose(blended, 0.25 * padded[0] + 0.25 * padded[1] + 0.5 * padded[2])
    assert chunk_embeds({0: tokens[0].bfloat16(), 1: tokens[1].bfloat16()}, [entry(0)], 1).dtype is torch.bfloat16


def test_thousands_of_prompts_at_one_chunk_are_no_trouble() -> None:
    schedule = [entry(5, 4)] * 5000
    assert prompt_weights(schedule, 5) == {0: 1.0}
    assert prompt_weights(schedule, 6) == pytest.approx({0: 2 / 3, 5000: 1 / 3})
