"""Why a picture or a clip was refused."""

from enum import StrEnum

from helios_services.errors import ExpectedError


class MediaReason(StrEnum):
    """Stable names; clients may depend on them."""

    TYPE_NOT_SUPPORTED = "MEDIA_TYPE_NOT_SUPPORTED"
    """A content type, container or codec outside the list."""
    TYPE_MISMATCH = "MEDIA_TYPE_MISMATCH"
    """The data is of another type than claimed."""
    TOO_LARGE = "MEDIA_TOO_LARGE"
    """Too many bytes, or too many pixels in a frame."""
    TOO_LONG = "MEDIA_TOO_LONG"
    """A clip of too many frames or seconds."""
    TOO_SHORT = "MEDIA_TOO_SHORT"
    """A clip of too few frames at the frame rate of the request."""
    TOO_COMPLEX = "MEDIA_TOO_COMPLEX"
    """Decoding needs more time or memory than it may use."""
    UNREADABLE = "MEDIA_UNREADABLE"
    """Broken, cut off, or able to crash the decoder."""


class MediaError(ExpectedError, ValueError):
    """A file cannot be used. The message is fit for whoever sent it.

    Attributes: `reason`; `detail`, what the decoder said, for logs only ("" if it said nothing).
    """

    def __init__(self, reason: MediaReason, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.reason, self.message, self.detail = reason, message, detail

    def __reduce__(self) -> tuple[type["MediaError"], tuple[MediaReason, str, str]]:
        return type(self), (self.reason, self.message, self.detail)


class SandboxError(ExpectedError, RuntimeError):
    """The decoder did not start; that is no fault of the file. The message is for logs."""


def refused(reason: MediaReason, field: str, found: str, allowed: str) -> MediaError:
    """A MediaError in the usual words."""
    return MediaError(reason, f"{field}: {found} is not allowed; allowed: {allowed}")
