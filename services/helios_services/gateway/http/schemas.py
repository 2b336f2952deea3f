"""What requests and answers look like, for the API's description (OpenAPI). What is allowed is said by the calls."""

from typing import Any

JSON, FORM = "application/json", "multipart/form-data"
PROMPT = {"type": "string", "minLength": 1, "maxLength": 8000}
SECONDS = {
    "anyOf": [{"type": "string"}, {"type": "number", "exclusiveMinimum": 0}],
    "description": "Length. Made in whole chunks of 33 frames: the answer says what it will be.",
}
SIZE = {
    "type": "string",
    "pattern": "^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$",
    "description": "WIDTHxHEIGHT. The nearest that the model takes is made: the answer says which.",
}
OURS = {
    "type": "object",
    "description": "SubmitJobRequest of the gRPC API in JSON: params, priority, labels, timeout, webhook_url, ...",
}
REFERENCE = {
    "type": "object",
    "properties": {"file_id": {"type": "string"}},
    "required": ["file_id"],
    "additionalProperties": False,
    "description": "An image (POST /v1/media). In a form: the file, an image or a clip.",
}
FILE = {"type": "string", "format": "binary", "description": "A file."}
SOURCE = {
    "type": "object",
    "properties": {"id": {"type": "string", "minLength": 1}},
    "required": ["id"],
    "additionalProperties": False,
    "description": "A finished video. In a form: a clip.",
}
CREATE = {
    "prompt": PROMPT,
    "model": {"type": "string"},
    "seconds": SECONDS,
    "size": SIZE,
    "input_reference": REFERENCE,
    "helios": OURS,
}
EXTEND = {"prompt": PROMPT, "model": {"type": "string"}, "seconds": SECONDS, "video": SOURCE, "helios": OURS}
REMIX = {"prompt": PROMPT, "seconds": SECONDS, "size": SIZE, "helios": OURS}
VIDEO = {
    "type": "object",
    "required": ["id", "object", "model", "status", "progress", "created_at", "size", "seconds", "helios"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "video"},
        "model": {"type": "string"},
        "status": {"enum": ["queued", "in_progress", "completed", "failed"]},
        "progress": {"type": "integer", "minimum": 0, "maximum": 100, "description": "Percent."},
        "created_at": {"type": "integer", "description": "Unix time."},
        "completed_at": {"type": ["integer", "null"]},
        "expires_at": {"type": ["integer", "null"], "description": "When the video is forgotten, once it has ended."},
        "prompt": {"type": ["string", "null"], "description": "Null in lists, and where it is no longer kept."},
        "size": {"type": "string"},
        "seconds": {"type": "string"},
        "remixed_from_video_id": {"type": ["string", "null"]},
        "error": {"type": ["object", "null"]},
        "helios": {"type": "object", "description": "Job of the gRPC API in JSON."},
    },
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The first field that is wrong."},
                "code": {"type": "string", "description": "A canonical code of google.rpc.Code in small letters."},
                "fields": {
                    "type": "array",
                    "description": "Every field that is wrong: field, value, allowed.",
                    "items": {"type": "object", "required": ["field", "value", "allowed"]},
                },
                "quota": {"type": "string", "description": "The limit that is used up."},
                "retry_after_s": {"type": "number"},
                "reason": {"type": "string", "description": "Why a video ended without its file."},
            },
        }
    },
}


def takes(fields: dict[str, Any], required: tuple[str, ...], file_field: str = "") -> dict[str, Any]:
    """For openapi_extra: a body of these fields, JSON or, with a file, a form."""
    plain = {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}
    content = {JSON: {"schema": plain}}
    if file_field:
        content[FORM] = {"schema": plain | {"properties": fields | {file_field: FILE}}}
    same = "The same key with the same request is the same video, however often it is sent."
    return {"requestBody": {"required": True, "content": content}, **heeds(("Idempotency-Key", same))}


def heeds(*headers: tuple[str, str]) -> dict[str, Any]:
    """For openapi_extra: headers that a call looks at, each with what it does."""
    return {
        "parameters": [
            {"name": name, "in": "header", "schema": {"type": "string", "maxLength": 128}, "description": text}
            for name, text in headers
        ]
    }


def answers(media_type: str, schema: dict[str, Any], status: int = 200) -> dict[int | str, dict[str, Any]]:
    """For responses: what a call answers when it is not refused."""
    return {status: {"description": "It worked.", "content": {media_type: {"schema": schema}}}}
