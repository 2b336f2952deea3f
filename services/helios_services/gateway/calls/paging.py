"""Page tokens of ListJobs: opaque, and bound to the filters they were made for."""

import base64
import binascii
import hashlib

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField

DIGEST_CHARS = 12
MAX_CURSOR_CHARS = 16
"""A submission number: Redis keeps scores as doubles, which are exact up to here."""


def token_of(cursor: str, request: pb.ListJobsRequest) -> str:
    """The token of the page behind `cursor`; empty for none."""
    return base64.urlsafe_b64encode(f"{cursor}.{_digest(request)}".encode()).decode() if cursor else ""


def cursor_of(request: pb.ListJobsRequest) -> str:
    """The cursor in the request's token. Raises InvalidField for one that is not ours, or of another query."""
    if not request.page_token:
        return ""
    try:
        cursor, _, digest = base64.urlsafe_b64decode(request.page_token.encode()).decode().partition(".")
    except (binascii.Error, ValueError):
        cursor = digest = ""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= MAX_CURSOR_CHARS) or digest != _digest(request):
        allowed = "the next_page_token of a response to the same filters"
        raise InvalidField("page_token", request.page_token, allowed)
    return cursor


def _digest(request: pb.ListJobsRequest) -> str:
    filters = f"{sorted(set(request.states))} {request.model} {request.dead_letters}"
    return hashlib.sha256(filters.encode()).hexdigest()[:DIGEST_CHARS]
