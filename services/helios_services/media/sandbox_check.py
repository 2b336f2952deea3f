"""Whether the decoding process can be confined here: looked at when the service starts, not at the first upload."""

import base64

import structlog

from helios_services.config import ConfigError, MediaConfig
from helios_services.media.errors import SandboxError
from helios_services.media.inputs import decode_image

log = structlog.get_logger(__name__)
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
"""A PNG of one gray pixel."""


def for_one_machine(limits: MediaConfig) -> MediaConfig:
    """The filter of system calls is required on one machine only if the settings say so."""
    return limits if "require_seccomp" in limits.model_fields_set else limits.model_copy(update=_NOT_REQUIRED)


def check_sandbox(limits: MediaConfig) -> None:
    """Decodes a picture. Warns where there is no filter of system calls, and none is required.

    Raises ConfigError where it is required, or where no decoding process can be started at all.
    """
    problem = _problem(limits.model_copy(update={"require_seccomp": True}))
    if problem and not limits.require_seccomp and not _problem(limits):
        log.warning(
            "media_sandbox_without_seccomp",
            problem=problem,
            meaning="a file that takes over its decoder can read this user's files and reach the network",
        )
    elif problem:
        raise ConfigError(f"media: uploads cannot be decoded safely here (media.require_seccomp): {problem}")


_NOT_REQUIRED = {"require_seccomp": False}


def _problem(limits: MediaConfig) -> str:
    try:
        decode_image(PICTURE, "image/png", height=1, width=1, limits=limits)
    except (SandboxError, OSError) as error:
        return str(error)
    return ""
