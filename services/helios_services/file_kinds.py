"""The kinds of files that users may send, by content type. What a file is, its bytes say; see sniff.py."""

SUFFIXES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/gif": "gif",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/x-m4v": "m4v",
    "video/3gpp": "3gp",
    "video/3gpp2": "3g2",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
}
"""Content types and the suffix that a file of each is kept under."""
STILLS = tuple(kind for kind in SUFFIXES if kind.startswith("image/"))
CLIPS = tuple(kind for kind in SUFFIXES if kind.startswith("video/"))
_OTHER_NAMES = {
    "image/jpg": "image/jpeg",
    "image/apng": "image/png",
    "video/m4v": "video/x-m4v",
    "video/matroska": "video/x-matroska",
    "video/avi": "video/x-msvideo",
    "video/msvideo": "video/x-msvideo",
    "video/vnd.avi": "video/x-msvideo",
}


def bare(content_type: str) -> str:
    """A content type without parameters, in small letters and by its usual name."""
    name = content_type.partition(";")[0].strip().lower()
    return _OTHER_NAMES.get(name, name)


def by_name(name: str) -> str:
    """The content type that a file's name stands for; empty for a name that stands for none."""
    suffix = name.rpartition(".")[2].lower()
    suffix = {"jpeg": "jpg", "apng": "png"}.get(suffix, suffix)
    return next((kind for kind, own in SUFFIXES.items() if own == suffix), "")
