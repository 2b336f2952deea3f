"""`POST /v1/media`: a picture or a clip, as it is, that jobs start from."""

from typing import Annotated, Any

from fastapi import APIRouter
from google.protobuf.json_format import MessageToDict
from starlette.requests import Request

from helios.v1 import video_generation_pb2 as pb
from helios_services.gateway.guard.caller import Call
from helios_services.gateway.http.admission import calling, house
from helios_services.gateway.http.bodies import parts
from helios_services.messages import media_message

router = APIRouter(tags=["media"])


@router.post("/v1/media", status_code=201)
async def upload_media(request: Request, call: Annotated[Call, calling("UploadMedia")]) -> dict[str, Any]:
    """The body is the file, Content-Type its type (docs/formats.md). Its `id` goes into image_id or video_id."""
    metadata = pb.MediaMetadata(content_type=request.headers.get("content-type", ""))
    length = request.headers.get("content-length", "")
    if length.isdigit():
        metadata.size_bytes = min(int(length), 2**63 - 1)
    behind = house(request)
    media = await behind.api.upload(call, metadata, parts(request, behind.config.media.max_bytes))
    return MessageToDict(media_message(media), preserving_proto_field_name=True)
