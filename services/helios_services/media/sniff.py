"""What a file is, by its first bytes."""

from helios_engine.errors import shorten
from helios_services.file_kinds import CLIPS, STILLS, bare
from helios_services.media.errors import MediaError, MediaReason, refused

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
_AVIF, _HEIF = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BRANDS = {
    b"qt  ": "video/quicktime",
    b"M4V ": "video/x-m4v",
    **dict.fromkeys((b"3gp", b"3gg", b"3ge", b"3gr", b"3gs"), "video/3gpp"),
    b"3g2": "video/3gpp2",
}
_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""What QuickTime files of before there were brands begin with."""
_EBML, _DOC_TYPE, _EBML_HEADER_BYTES = b"\x1a\x45\xdf\xa3", b"\x42\x82", 64
_WHAT_TO_DO = {
    "image/heif": "; HEIC pictures: convert them, or let the camera write JPEG (iPhone: Settings, Camera, Formats)",
}


def sniff(data: bytes) -> str:
    """The content type of the data, or UNKNOWN."""
    if data[4:8] == b"ftyp":
        return _iso(data)
    if data[4:8] in _QUICKTIME:
        return "video/quicktime"
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], UNKNOWN)
    if data[:4] == _EBML:
        header = data[:_EBML_HEADER_BYTES]
        at = header.find(_DOC_TYPE)
        # id, one byte of length (0x80 | 4), text
        return "video/webm" if at >= 0 and header[at + 2 : at + 7] == b"\x84webm" else "video/x-matroska"
    return next((kind for prefix, kind in _PREFIXES.items() if data.startswith(prefix)), UNKNOWN)


def _iso(data: bytes) -> str:
    """The type by the major brand; a still's own format stands among the compatible ones."""
    size = min(int.from_bytes(data[:4], "big"), 256)
    major, brands = data[8:12], [data[at : at + 4] for at in range(8, size, 4)]
    if major in (*_AVIF, *_HEIF):
        return "image/avif" if any(brand in _AVIF for brand in brands) else "image/heif"
    return _BRANDS.get(major) or _BRANDS.get(major[:3], "video/mp4")


def check_type(field: str, data: bytes, content_type: str) -> str:
    """The content type of the data, for `field` "image" or "clip": any that is allowed there, whichever was claimed.

    Raises MediaError, also if a still is claimed for a clip or the other way round.
    """
    allowed = STILLS if field == "image" else CLIPS
    claimed, found = bare(content_type), sniff(data)
    if claimed not in allowed:
        raise refused(
            MediaReason.TYPE_NOT_SUPPORTED, field, f"content type {shorten(content_type)}", ", ".join(allowed)
        )
    if found in allowed:
        return found
    if found != UNKNOWN and found.partition("/")[0] == claimed.partition("/")[0]:
        raise _unsupported(field, found, allowed)
    raise refused(MediaReason.TYPE_MISMATCH, field, f"{found} sent as {claimed}", "data of the type it is sent as")


def _unsupported(field: str, found: str, allowed: tuple[str, ...]) -> MediaError:
    return refused(MediaReason.TYPE_NOT_SUPPORTED, field, found, ", ".join(allowed) + _WHAT_TO_DO.get(found, ""))
