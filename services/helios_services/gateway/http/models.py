"""`/v1/models`: what jobs may name."""

from typing import Any

from fastapi import APIRouter
from google.protobuf.json_format import MessageToDict
from starlette.requests import Request

from helios_services.gateway.http.admission import Looking, house
from helios_services.messages import model_message

router = APIRouter(tags=["models"])


@router.get("/v1/models")
async def list_models(request: Request, call: Looking) -> dict[str, Any]:
    """The models; `helios` has each one's limits and defaults."""
    models = [
        {
            "id": model.name,
            "object": "model",
            "created": 0,
            "owned_by": "helios",
            "helios": MessageToDict(model_message(model), preserving_proto_field_name=True),
        }
        for model in house(request).api.models(call)
    ]
    return {"object": "list", "data": models}
