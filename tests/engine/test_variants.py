"""Each variant fills in its own defaults and refuses what it does not take."""

from typing import Any

import pytest

from helios_engine.errors import InvalidField
from helios_engine.request import GenerationRequest
from helios_engine.variants import VARIANTS, resolve


def request(**fields: Any) -> GenerationRequest:
    return GenerationRequest(prompt="a lake", **fields)


def test_published_defaults() -> None:
    base, mid, distilled = (resolve(request(), name) for name in ("base", "mid", "distilled"))
    assert (base.num_inference_steps, base.guidance_scale, base.pyramid_steps) == (50, 5.0, None)
    assert (mid.pyramid_steps, mid.guidance_scale, mid.zero_init, mid.zero_steps) == ((20, 20, 20), 5.0, True, 1)
    assert (distilled.pyramid_steps, distilled.guidance_scale, distilled.amplify_first_chunk) == ((2, 2, 2), 1.0, False)
    assert [each.guided for each in (base, mid, distilled)] == [True, True, False]


@pytest.mark.parametrize("variant", VARIANTS)
def test_given_values_stay(variant: str) -> None:
    given = {name: value for name, value in VARIANTS[variant].defaults.items() if name != "guidance_scale"}
    given = {name: (1, 1, 1) if name == "pyramid_steps" else value for name, value in given.items()}
    resolved = resolve(request(**given), variant)
    assert {name: getattr(resolved, name) for name in given} == given
    assert resolve(resolved, variant) == resolved


@pytest.mark.parametrize(
    ("variant", "field", "value"),
    [
        ("base", "pyramid_steps", (1, 1, 1)),
        ("base", "amplify_first_chunk", True),
        ("base", "zero_init", True),
        ("mid", "num_inference_steps", 20),
        ("mid", "amplify_first_chunk", False),
        ("distilled", "num_inference_steps", 20),
        ("distilled", "negative_prompt", "blur"),
        ("distilled", "zero_steps", 1),
        ("distilled", "guidance_scale", 5.0),
    ],
)
def test_fields_of_other_variants_are_refused(variant: str, field: str, value: Any) -> None:
    with pytest.raises(InvalidField, match=f"^{field}: "):
        resolve(request(**{field: value}), variant)


@pytest.mark.parametrize(("variant", "nearest"), [("base", None), ("mid", "64 or 128"), ("distilled", "64 or 128")])
def test_sizes(variant: str, nearest: str | None) -> None:
    odd = request(height=80, width=640)
    if nearest is None:
        assert resolve(odd, variant).height == 80
    else:
        with pytest.raises(InvalidField, match=f"height: 80 .* nearest: {nearest}"):
            resolve(odd, variant)
