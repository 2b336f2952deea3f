"""Every bad field is refused by name, with its value and what is allowed; the next good request is answered."""

from typing import Any

import grpc
import pytest

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, HeliosError
from helios_services.config import ModelConfig
from helios_services.gateway.calls.validate import Submission, job_spec
from helios_services.gateway.guard.refusal import Refusal
from helios_services.gateway.server import Gateway

NAN = float("nan")
BAD_PARAMS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"prompt": ""}, "params.prompt", ["''", "1 to 8,000 characters"]),
    ({"prompt": "x" * 1_000_000}, "params.prompt", ["'xxx", "1 to 8,000", "1,000,000"]),
    ({"num_frames": 0}, "params.num_frames", ["0 is", "from 1 to"]),
    ({"num_frames": -5}, "params.num_frames", ["-5", "from 1 to"]),
    ({"num_frames": 1_000_000}, "params.num_frames", ["1000000", "from 1 to 14520"]),
    ({"height": 100}, "params.height", ["100", "nearest: 64 or 128"]),
    ({"width": -64}, "params.width", ["-64", "multiple of 64"]),
    ({"height": 6400, "width": 6400}, "params.height", ["6400x6400", "at most 983,040 pixels"]),
    ({"seed": -1}, "params.seed", ["-1", "from 0 to 9223372036854775807"]),
    ({"guidance_scale": NAN}, "params.guidance_scale", ["nan", "from 1 to 100"]),
    ({"guidance_scale": 7.5}, "params.guidance_scale", ["7.5", "1.0"]),
    ({"pyramid_steps": [1, 2]}, "params.pyramid_steps", ["(1, 2)", "3 integers"]),
    ({"fps": 1000}, "params.fps", ["1000", "from 1 to 120"]),
    ({"negative_prompt": "blur"}, "params.negative_prompt", ["blur", "guidance is distilled"]),
    ({"num_inference_steps": 50}, "params.num_inference_steps", ["50", "pyramid models take pyramid_steps"]),
    ({"zero_init": True}, "params.zero_init", ["True", "only Helios-Mid"]),
    ({"shift": 0.0}, "params.shift", ["0.0", "from 0.01 to 100"]),
    ({"image_noise_sigma": pb.NoiseRange(min=0.5, max=0.1)}, "params.image_noise_sigma", ["(0.5, 0.1)", "minimum"]),
    ({"loras": [pb.LoraWeight(name="x")]}, "params.loras[0].name", ["'x'", "it has none"]),
    (
        {"prompt_schedule": [pb.ScheduledPrompt(chunk_index=1)]},
        "params.prompt_schedule[0].prompt",
        ["''", "1 to 8,000"],
    ),
    ({"open_ended": True, "num_frames": 33}, "params.num_frames", ["33", "nothing for an open-ended job"]),
    ({"image_id": "a", "video_id": "b"}, "params.video_id", ["only one of image_id, video_id, continue_from"]),
    ({"labels": {str(n): "" for n in range(17)}}, "labels", ["17 labels", "at most 16"]),
    ({"labels": {"k": "v" * 257}}, "labels[k]", ["257", "at most 256"]),
    ({"idempotency_key": "k" * 129}, "idempotency_key", ["kkk", "at most 128"]),
    (
        {"prompt_schedule": [pb.ScheduledPrompt(chunk_index=1, prompt="é" * 8000)] * 5},
        "params",
        ["80,", "bytes", "at most 65,536 bytes"],
    ),
]


@pytest.mark.parametrize(("options", "field", "named"), BAD_PARAMS, ids=lambda value: str(value)[:30])
async def test_bad_submission(client: AsyncHeliosClient, options: dict[str, Any], field: str, named: list[str]) -> None:
    with pytest.raises(HeliosError) as caught:
        await client.submit(**{"prompt": "a lake"} | options)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(caught.value.violations) == {field}
    for part in (field, *named):
        assert part in caught.value.violations[field]
    assert len(caught.value.message) < 1000
    assert (await client.submit("a lake")).state == pb.JOB_STATE_QUEUED


@pytest.mark.parametrize(
    ("variant", "field", "steps", "most"),
    [("distilled", "pyramid_steps", [10, 10, 11], 30), ("base", "num_inference_steps", 31, 30)],
)
def test_more_steps_than_the_service_allows(variant: str, field: str, steps: Any, most: int) -> None:
    model = ModelConfig.model_validate({"variant": variant, "max_steps": most})
    params = pb.GenerationParams(prompt="a lake", **{field: steps})
    with pytest.raises(Refusal, match=rf"params\.{field}: '31 steps'.*at most 30 steps in all"):
        job_spec(Submission(request=pb.SubmitJobRequest(params=params), model=model))
    allowed = model.model_copy(update={"max_steps": 31})
    job_spec(Submission(request=pb.SubmitJobRequest(params=params), model=allowed))


async def test_all_problems_are_reported_at_once(client: AsyncHeliosClient) -> None:
    with pytest.raises(HeliosError) as caught:
        await client.submit("", num_frames=0, height=1, idempotency_key="k" * 200)
    assert set(caught.value.violations) == {
        "params.prompt",
        "params.num_frames",
        "params.height",
        "idempotency_key",
    }


async def test_unknown_model_names_the_known_one(client: AsyncHeliosClient) -> None:
    with pytest.raises(HeliosError, match=r"'gpt-9'.*'helios-distilled'") as caught:
        await client.submit("a lake", model="gpt-9")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


BAD_CALLS: list[tuple[str, Any, grpc.StatusCode, list[str]]] = [
    ("GetJob", pb.GetJobRequest(job_id="nope"), grpc.StatusCode.NOT_FOUND, ["'nope'"]),
    ("CancelJob", pb.CancelJobRequest(job_id="nope"), grpc.StatusCode.NOT_FOUND, ["'nope'"]),
    ("WatchJob", pb.WatchJobRequest(job_id="nope"), grpc.StatusCode.NOT_FOUND, ["'nope'"]),
    ("StreamVideo", pb.StreamVideoRequest(job_id="nope"), grpc.StatusCode.NOT_FOUND, ["'nope'"]),
    ("DownloadVideo", pb.DownloadVideoRequest(job_id="nope"), grpc.StatusCode.NOT_FOUND, ["'nope'"]),
    (
        "ListJobs",
        pb.ListJobsRequest(page_token="nonsense"),
        grpc.StatusCode.INVALID_ARGUMENT,
        ["page_token", "nonsense", "next_page_token"],
    ),
    (
        "ListJobs",
        pb.ListJobsRequest(page_size=501),
        grpc.StatusCode.INVALID_ARGUMENT,
        ["page_size", "501", "1 to 500"],
    ),
    (
        "ListJobs",
        pb.ListJobsRequest(states=[99]),  # type: ignore[list-item]
        grpc.StatusCode.INVALID_ARGUMENT,
        ["states", "99", "JOB_STATE_QUEUED"],
    ),
    (
        "SubmitJob",
        pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a"), priority=9),  # type: ignore[arg-type]
        grpc.StatusCode.INVALID_ARGUMENT,
        ["priority", "9", "PRIORITY_BATCH"],
    ),
    (
        "UpdatePrompt",
        pb.UpdatePromptRequest(job_id="nope", prompt="a sea"),
        grpc.StatusCode.NOT_FOUND,
        ["'nope'"],
    ),
    ("UpdatePrompt", pb.UpdatePromptRequest(job_id="nope"), grpc.StatusCode.INVALID_ARGUMENT, ["prompt: ''"]),
    (
        "UpdatePrompt",
        pb.UpdatePromptRequest(job_id="nope", prompt="a", interpolation_chunks=31),
        grpc.StatusCode.INVALID_ARGUMENT,
        ["interpolation_chunks: 31", "from 0 to 30"],
    ),
]


@pytest.mark.parametrize(("method", "request_message", "code", "named"), BAD_CALLS, ids=lambda value: str(value)[:20])
async def test_bad_call(
    gateway: Gateway, method: str, request_message: Any, code: grpc.StatusCode, named: list[str]
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        call = getattr(VideoGenerationStub(channel), method)(request_message)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [message async for message in call] if hasattr(call, "__aiter__") else await call
    assert caught.value.code() is code
    for part in named:
        assert part in (caught.value.details() or "")


async def test_from_chunk_outside_the_video(client: AsyncHeliosClient) -> None:
    job = await client.submit("a lake", num_frames=66)
    for from_chunk, code in ((-1, grpc.StatusCode.INVALID_ARGUMENT), (3, grpc.StatusCode.OUT_OF_RANGE)):
        with pytest.raises(HeliosError, match="0 to 1") as caught:
            _ = [segment async for segment in client.stream(job.id, from_chunk)]
        assert caught.value.code is code
