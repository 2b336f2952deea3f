"""Cursors of lists: they tell nothing, and are good for the list only that they were made for."""

import base64
import binascii
import hashlib
import hmac

from helios_services.jobs.errors import InvalidCursor

TAG_BYTES, POSITION_BYTES = 16, 8


class Cursors:
    """Seals positions with a secret that all gateways of a store share."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, position: int, scope: str) -> str:
        """The cursor of a position. scope: all that the list depends on."""
        plain = position.to_bytes(POSITION_BYTES, "big")
        tag = self._mac(b"tag", plain, scope.encode())[:TAG_BYTES]
        return base64.urlsafe_b64encode(tag + self._masked(plain, tag)).decode()

    def open(self, cursor: str, scope: str) -> int:
        """The position. Raises InvalidCursor for one that is not ours, or of another list."""
        try:
            data = base64.urlsafe_b64decode(cursor.encode())
        except (binascii.Error, ValueError):
            data = b""
        tag = data[:TAG_BYTES]
        plain = self._masked(data[TAG_BYTES:], tag)
        if len(plain) != POSITION_BYTES or not hmac.compare_digest(
            tag, self._mac(b"tag", plain, scope.encode())[:TAG_BYTES]
        ):
            raise InvalidCursor(f"cursor: {cursor!r} is not one that this list gave")
        return int.from_bytes(plain, "big")

    def _masked(self, data: bytes, tag: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(data, self._mac(b"mask", tag), strict=False)) if len(data) <= 32 else b""

    def _mac(self, *parts: bytes) -> bytes:
        return hmac.new(self._secret, b"\0".join(parts), hashlib.sha256).digest()
