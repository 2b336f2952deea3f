"""The three published models: what each takes and its defaults. Free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from helios_engine.errors import InvalidField
from helios_engine.options import VariantName
from helios_engine.request import GenerationRequest, check_size


@dataclass(frozen=True, kw_only=True)
class Variant:
    """size_multiple: what height and width must divide by. defaults: of the fields that this variant takes."""

    name: VariantName
    size_multiple: int
    defaults: Mapping[str, Any]
    unused: Mapping[str, str] = field(default_factory=dict)


PYRAMID_MULTIPLE = 64
"""VAE 8x, patch 2x, two halvings of the pyramid."""
_SINGLE_STAGE = "nothing: Helios-Base has a single stage"
_NO_GUIDANCE = "nothing: guidance is distilled into this model"
_NO_STEPS = "nothing: pyramid models take pyramid_steps"
_NO_ZERO = "nothing: only Helios-Mid uses CFG-Zero*"
_NO_AMPLIFY = "nothing: only Helios-Distilled amplifies its first chunk"

VARIANTS: Mapping[str, Variant] = {
    "base": Variant(
        name="base",
        size_multiple=16,
        defaults={"num_inference_steps": 50, "guidance_scale": 5.0},
        unused={
            "pyramid_steps": _SINGLE_STAGE,
            "zero_init": _NO_ZERO,
            "zero_steps": _NO_ZERO,
            "amplify_first_chunk": _NO_AMPLIFY,
        },
    ),
    "mid": Variant(
        name="mid",
        size_multiple=PYRAMID_MULTIPLE,
        defaults={"pyramid_steps": (20, 20, 20), "guidance_scale": 5.0, "zero_init": True, "zero_steps": 1},
        unused={"num_inference_steps": _NO_STEPS, "amplify_first_chunk": _NO_AMPLIFY},
    ),
    "distilled": Variant(
        name="distilled",
        size_multiple=PYRAMID_MULTIPLE,
        defaults={"pyramid_steps": (2, 2, 2), "guidance_scale": 1.0, "amplify_first_chunk": False},
        unused={
            "num_inference_steps": _NO_STEPS,
            "zero_init": _NO_ZERO,
            "zero_steps": _NO_ZERO,
            "negative_prompt": _NO_GUIDANCE,
        },
    ),
}


def resolve(request: GenerationRequest, variant: str) -> GenerationRequest:
    """The request with the variant's defaults filled in. Raises InvalidField for what the variant does not take."""
    model = VARIANTS[variant]
    for name, allowed in model.unused.items():
        if getattr(request, name) not in (None, ""):
            raise InvalidField(name, getattr(request, name), allowed)
    for name in ("height", "width"):
        check_size(name, getattr(request, name), model.size_multiple)
    if variant == "distilled" and request.guidance_scale not in (None, 1.0):
        raise InvalidField("guidance_scale", request.guidance_scale, "1.0: guidance is distilled into this model")
    missing = {name: value for name, value in model.defaults.items() if getattr(request, name) is None}
    return replace(request, **missing)


def make_request(variant: str, **fields: Any) -> GenerationRequest:
    """A resolved request, from GenerationRequest's fields. Raises InvalidField, for sizes with this variant's."""
    for name in ("height", "width"):
        if name in fields:
            check_size(name, fields[name], VARIANTS[variant].size_multiple)
    return resolve(GenerationRequest(**fields), variant)
