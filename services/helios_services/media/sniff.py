"""What a file is, by its first bytes."""

from helios_engine.errors import shorten
from helios_services.media.errors import MediaReason, refused

STILLS = ("image/png", "image/jpeg", "image/webp")
CLIPS = ("video/mp4", "video/webm")
UNKNOWN = "data of an unknown type"

_PREFIXES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"OggS": "video/ogg",
    b"%PDF-": "application/pdf",
}
_RIFF = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}
_BRANDS = {
    b"qt  ": "video/quicktime",
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "image/heif"),
}
_EBML, _DOC_TYPE, _EBML_HEADER_BYTES = b"\x1a\x45\xdf\xa3", b"\x42\x82", 64


def sniff(data: bytes) -> str:
    """The content type of the data, or UNKNOWN."""
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "video/mp4")
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], UNKNOWN)
    if data[:4] == _EBML:
        header = data[:_EBML_HEADER_BYTES]
        at = header.find(_DOC_TYPE)
        # id, one byte of length (0x80 | 4), text
        return "video/webm" if at >= 0 and header[at + 2 : at + 7] == b"\x84webm" else "video/x-matroska"
    return next((kind for prefix, kind in _PREFIXES.items() if data.startswith(prefix)), UNKNOWN)


def check_type(field: str, data: bytes, content_type: str, allowed: tuple[str, ...]) -> str:
    """The bare content type, once claim and data agree on one that is allowed. Raises MediaError."""
    claimed = content_type.partition(";")[0].strip().lower()
    if claimed not in allowed:
        found = f"content type {shorten(content_type)}"
        raise refused(MediaReason.TYPE_NOT_SUPPORTED, field, found, ", ".join(allowed))
    found = sniff(data)
    if found != claimed:
        raise refused(MediaReason.TYPE_MISMATCH, field, f"{found} sent as {claimed}", "data of the type it is sent as")
    return claimed
