"""Fields by the names that HTTP's clients give them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from helios_engine.errors import InvalidField
from helios_services.gateway.guard.refusal import Code, Refusal, Violation, bad_request

OURS = "helios"
"""The field of a request that holds everything that OpenAI's dialect has no name for."""


@contextmanager
def called(names: Mapping[str, str], otherwise: str = "") -> Iterator[None]:
    """Refusals of the block name fields as the client does. names: by the names of the calls' requests. otherwise: what
    all others are in."""
    try:
        yield
    except InvalidField as error:
        raise _renamed(bad_request([error]), names, otherwise) from None
    except Refusal as refusal:
        raise _renamed(refusal, names, otherwise) from None


def _renamed(refusal: Refusal, names: Mapping[str, str], otherwise: str) -> Refusal:
    if refusal.code is not Code.INVALID_ARGUMENT or not refusal.violations:
        return refusal
    violations = []
    for wrong in refusal.violations:
        field = names.get(wrong.field) or (f"{otherwise}.{wrong.field}" if otherwise else wrong.field)
        text = f"{field}: {wrong.value} is not allowed; allowed: {wrong.allowed}"
        violations.append(Violation(field=field, description=text, value=wrong.value, allowed=wrong.allowed))
    return Refusal(refusal.code, "; ".join(wrong.description for wrong in violations), violations=violations)
