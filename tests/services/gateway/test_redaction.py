"""No secret, prompt or upload in logs, metrics or spans, whatever the calls: good, bad, and such as break something."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import yaml
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest
from pydantic import BaseModel

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.config import ConfigError, RedisConfig, ServiceConfig, load_config
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import new_key
from helios_services.jobs.errors import StoreUnavailable
from helios_services.jobs.store import JobStore
from helios_services.redaction import keep_secret, scrub
from helios_services.telemetry.logs import configure_logging
from support.gateway import serving
from support.redis_clients import blocking_client

PROMPT = "an otter in a raincoat juggles lanterns"
PICTURE = b"\x89PNG\r\n\x1a\nopen-sesame-picture"
REDIS_PASSWORD, URL_PASSWORD = "redis-pass-4711-word", "url-pass-0815-word"
CONTENT = ("otter", "raincoat", "lantern", "open-sesame", "purple-label")


class Prompted(BaseModel):
    """Its ValidationError quotes the prompt."""

    prompt: int


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


class Logs:
    """What was written on standard error."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture, self._text = capture, ""

    def text(self) -> str:
        self._text += self._capture.readouterr().err
        return self._text


@pytest.fixture
def logs(capsys: pytest.CaptureFixture[str]) -> Iterator[Logs]:
    last_resort = logging.lastResort
    yield Logs(capsys)
    structlog.reset_defaults()
    logging.lastResort = last_resort


@pytest.fixture
def redis(redis: RedisConfig, tmp_path: Path) -> Iterator[RedisConfig]:
    file = tmp_path / "redis-password"
    file.write_text(REDIS_PASSWORD)
    with blocking_client(redis.url) as admin:
        admin.execute_command("ACL", "SETUSER", "gateway", "reset", "on", f">{REDIS_PASSWORD}", "~*", "&*", "+@all")
        yield redis.model_copy(update={"username": "gateway", "password_file": str(file)})
        admin.execute_command("ACL", "DELUSER", "gateway")


async def drained(call: Any) -> grpc.StatusCode:
    """Reads a call to its end; its code."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError:
        pass
    code: grpc.StatusCode = await call.code()
    return code


async def calls_of_every_kind(stub: Any, metadata: Any, monkeypatch: pytest.MonkeyPatch) -> set[grpc.StatusCode]:
    """Good and bad calls; the codes they ended with."""
    good = pb.SubmitJobRequest(
        params=pb.GenerationParams(prompt=PROMPT), labels={"team": "purple-label"}, idempotency_key="k"
    )
    bad = pb.SubmitJobRequest(params=pb.GenerationParams(prompt=PROMPT * 300, negative_prompt=PROMPT, height=1))
    other = pb.SubmitJobRequest(params=pb.GenerationParams(prompt=PROMPT, seed=1), idempotency_key="k")
    codes = set()
    job = await stub.SubmitJob(good, metadata=metadata)
    update = pb.UpdatePromptRequest(job_id=job.id, prompt=PROMPT)
    upload = [
        pb.UploadMediaRequest(metadata=pb.MediaMetadata(content_type="image/png")),
        pb.UploadMediaRequest(data=PICTURE),
    ]
    says = [pb.InteractRequest(start=good), pb.InteractRequest(prompt=pb.ScheduledPrompt(prompt=PROMPT * 300))]

    async def every_call() -> None:
        for call in (
            stub.SubmitJob(good, metadata=metadata),
            stub.SubmitJob(bad, metadata=metadata),
            stub.SubmitJob(other, metadata=metadata),
            stub.SubmitJob(good, metadata=(("authorization", f"{metadata[0][1]}x"),)),
            stub.SubmitJob(good),
            stub.GetJob(pb.GetJobRequest(job_id=job.id), metadata=metadata),
            stub.GetJob(pb.GetJobRequest(job_id=PROMPT), metadata=metadata),
            stub.ListJobs(pb.ListJobsRequest(), metadata=metadata),
            stub.ListJobs(pb.ListJobsRequest(page_token=PROMPT), metadata=metadata),
            stub.UpdatePrompt(update, metadata=metadata),
            stub.UpdatePrompt(pb.UpdatePromptRequest(job_id=PROMPT, prompt=PROMPT * 300), metadata=metadata),
            stub.UploadMedia(iter(upload), metadata=metadata),
            stub.UploadMedia(iter([upload[0], upload[0]]), metadata=metadata),
            stub.Interact(iter(says), metadata=metadata, timeout=2),
            stub.Interact(iter(says[1:]), metadata=metadata),
            stub.WatchJob(pb.WatchJobRequest(job_id=PROMPT), metadata=metadata),
            stub.StreamVideo(pb.StreamVideoRequest(job_id=job.id, from_chunk=-1), metadata=metadata),
            stub.GenerateVideo(pb.GenerateVideoRequest(job=bad), metadata=metadata),
            stub.DownloadVideo(pb.DownloadVideoRequest(job_id=job.id), metadata=metadata),
            stub.ListModels(pb.ListModelsRequest(), metadata=metadata),
        ):
            codes.add(await drained(call))

    async def broken(*_: object, **__: object) -> Any:
        try:
            Prompted.model_validate({"prompt": PROMPT})
        except ValueError as error:
            raise RuntimeError(f"{PROMPT}: {metadata[0][1]}, {REDIS_PASSWORD}, {PICTURE!r}") from error

    async def unreachable(*_: object, **__: object) -> Any:
        raise StoreUnavailable(f"cannot reach redis://helios:{URL_PASSWORD}@redis:6379/0")

    await every_call()
    for fault in (broken, unreachable):
        with monkeypatch.context() as patch:
            for name in ("get", "submit", "page", "update_prompt", "reserve_media", "add_media"):
                patch.setattr(JobStore, name, fault)
            await every_call()
    codes.add(await drained(stub.CancelJob(pb.CancelJobRequest(job_id=job.id), metadata=metadata)))
    return codes


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_nothing_of_it_in_logs_metrics_and_spans(
    config: ServiceConfig,
    level: str,
    logs: Logs,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    configure_logging(level)
    key, entry = new_key("ops", "acme", frozenset({Scope.ADMIN}))
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": [entry.model_dump(mode="json")]}))
    metadata = (("authorization", f"Bearer {key}"),)
    async with (
        serving(config, api_keys_file=str(keys)) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
    ):
        codes = await calls_of_every_kind(VideoGenerationStub(channel), metadata, monkeypatch)
        logging.getLogger("grpc").warning("a library says %s\nand %s", metadata, PROMPT)
    assert {"OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "INTERNAL", "UNAVAILABLE"} <= {code.name for code in codes}
    written = {
        "logs": logs.text(),
        "metrics": generate_latest(gateway.metrics.registry).decode(),
        "spans": "\n".join(map(_all_of, spans.get_finished_spans())),
    }
    assert "call_failed" in written["logs"]
    assert "SubmitJob" in written["metrics"]
    assert "SubmitJob" in written["spans"]
    for place, text in written.items():
        for secret in (key, key.partition(".")[2], REDIS_PASSWORD, URL_PASSWORD):
            assert secret not in text, place
        if level == "debug" and place == "logs":
            continue  # what to look for is the point of debugging
        for word in CONTENT:
            assert word not in text, place
    if level == "info":
        failures = [json.loads(line) for line in written["logs"].splitlines() if "call_failed" in line]
        assert all(failure["error_id"] for failure in failures)
        assert all("ValidationError" in failure["exception"] for failure in failures)  # what, and where
        assert all("RuntimeError" in failure["exception"] for failure in failures)
        assert all("test_redaction.py" in failure["exception"] for failure in failures)


def _all_of(span: ReadableSpan) -> str:
    events = [(event.name, dict(event.attributes or {})) for event in span.events]
    return f"{span.name} {dict(span.attributes or {})} {span.status.description} {events}"


SECRET = "gate.QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY"


@pytest.mark.parametrize(
    ("given", "kept", "lost"),
    [
        ("rediss://helios:pa%2Fss:w@redis:6379/0 is down", ["redis:6379/0 is down"], ["pa%2Fss", "helios:"]),
        (f"authorization: Bearer {SECRET}", ["authorization: Bearer"], [SECRET[5:], SECRET]),
        (f"key {SECRET} is unknown", ["gate.", "is unknown"], [SECRET[5:]]),
        ("line 2: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw is short", ["line 2:", "is short"], ["MfKQ9r8G", "LaLaSw"]),
        ("chunk 3 of a1b2.mp4 at http://otel:4317", ["chunk 3 of a1b2.mp4 at http://otel:4317"], []),
    ],
)
def test_what_looks_like_a_secret_is_replaced(given: str, kept: list[str], lost: list[str]) -> None:
    text = scrub(given)
    assert all(part in text for part in kept)
    assert not any(part in text for part in lost)


def test_known_secrets_are_replaced_wherever_they_stand() -> None:
    keep_secret("tr0ub4dor-and-three")
    assert scrub("'password': 'tr0ub4dor-and-three'") == "'password': '[redacted]'"


def log_line(logs: Logs, level: str, **fields: Any) -> dict[str, Any]:
    configure_logging(level)
    structlog.get_logger().warning("something", **fields)
    line: dict[str, Any] = json.loads(logs.text().splitlines()[-1])
    return line


def test_fields_of_a_log_line(logs: Logs) -> None:
    fields = {
        "prompt": PROMPT,
        "webhook_secret": "abc",
        "authorization": "Bearer x",
        "data": PICTURE,
        "chunk": 3,
        "stage_s": 0.25,
        "nested": {"prompt": PROMPT, "n": 1, "blob": PICTURE},
        "record": pb.GenerationParams(prompt=PROMPT),
        "error": ValueError(PROMPT),
        "lost": TimeoutError("after 5 s"),
    }
    line = log_line(logs, "info", **fields)
    assert (line["chunk"], line["stage_s"], line["lost"]) == (3, 0.25, "after 5 s")
    assert line["nested"] == {"prompt": "[redacted]", "n": 1, "blob": f"<{len(PICTURE)} bytes>"}
    assert (line["record"], line["error"]) == ("<GenerationParams>", "<ValueError>")
    assert "otter" not in json.dumps(line)
    debugged = log_line(logs, "debug", **fields)
    assert debugged["prompt"] == PROMPT
    assert (debugged["webhook_secret"], debugged["authorization"]) == ("[redacted]", "[redacted]")
    assert "open-sesame" not in json.dumps(debugged)


def test_a_remote_traceback_keeps_its_places_and_loses_its_words(logs: Logs) -> None:
    remote = (
        f'Traceback:\n  File "/app/stage.py", line 7, in encode\n    raise ValueError(prompt)\nValueError: {PROMPT}'
    )
    line = log_line(logs, "info", exc_info=RuntimeError(remote))
    assert 'File "/app/stage.py", line 7, in encode' in line["exception"]
    assert "ValueError" in line["exception"]
    assert "otter" not in line["exception"]


def test_configuration_errors_do_not_show_what_may_be_a_password(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("redis: {pasword: hunter2-hunter2}\nartifact_url: [s3://me:s3cr3t-key@bucket]")
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert "redis.pasword" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
