"""Records to and from what Redis holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as fields_of
from typing import Any

from helios_engine.prompts import ScheduledPrompt
from helios_services.config.places import origin
from helios_services.jobs.charge import charge_of
from helios_services.jobs.records import Account, ChunkRecord, Job, JobFailure, JobSpec, Media, Priority
from helios_services.jobs.state import JobState

SPEC_FIELDS = {field.name for field in fields_of(JobSpec)}
"""A newer release's others are not known here."""
LATER_FIELDS = {"timeout_s": None, "queue_timeout_s": None, "webhook_url": ""}
"""Fields that older releases do not know, and what they mean by that: a spec that says no more has the same text."""


TEXTS = {"prompt": "", "negative_prompt": "", "prompt_schedule": []}
"""What a summary's params have in place of the request's texts."""
SUMMARY = (
    *("summary", "state", "model", "priority", "tenant", "chunks_total", "chunks_done", "attempts", "revision"),
    *(
        "created_ms",
        "started_ms",
        "ended_ms",
        "error_reason",
        "error_message",
        "artifact",
        "video_bytes",
        "first_chunk",
    ),
    *("paused_ms", "trace", "account", "deadline_ms"),
)
"""Fields of a record that make a job without its request."""


def spec_to_json(spec: JobSpec) -> str:
    """Canonical JSON: equal specs give equal text, in every release. What idempotency keys are held to."""
    said = {name: value for name, value in vars(spec).items() if LATER_FIELDS.get(name, ...) != value}
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def stored_json(spec: Mapping[str, Any]) -> str:
    """A spec as it is kept, in as few bytes as its texts have in UTF-8."""
    said = {name: value for name, value in spec.items() if LATER_FIELDS.get(name, ...) != value}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def summary_json(spec: Mapping[str, Any]) -> str:
    """The same without prompts."""
    params = {name: TEXTS.get(name, value) for name, value in spec["params"].items()}
    return stored_json({**spec, "params": params})


def terms_to_json(spec: JobSpec, account: Account, within_s: float | None) -> str:
    """What submit.lua counts and limits a job by; times in milliseconds, what does not bind left out."""
    timeouts_s = [timeout_s for timeout_s in (spec.timeout_s, within_s) if timeout_s is not None]
    terms = {
        "tenant": spec.tenant,
        "account": account.id,
        "weight": account.weight,
        "fps": spec.params["fps"],
        **vars(charge_of(spec.params, spec.upload)),
        "timeout_ms": _milliseconds(min(timeouts_s, default=None)),
        "queue_timeout_ms": _milliseconds(spec.queue_timeout_s),
        "submits_per_minute": account.submits_per_minute,
        "max_queued": account.max_queued,
        "max_running": account.max_running,
        "webhook": f"{spec.tenant} {origin(spec.webhook_url)}" if spec.webhook_url else None,
        "video_ms_a_day": _milliseconds(account.video_minutes_per_day, 60_000),
    }
    return json.dumps({name: value for name, value in terms.items() if value is not None})


def _milliseconds(value: float | None, unit_ms: float = 1000.0) -> int | None:
    return None if value is None else round(value * unit_ms)


def prompt_from_entry(entry: bytes) -> ScheduledPrompt:
    """A prompt update from an entry of its list."""
    _, chunk, interpolation, prompt = json.loads(entry)
    return ScheduledPrompt(chunk_index=int(chunk), prompt=prompt, interpolation_chunks=int(interpolation))


def media_from_hash(media_id: str, fields: Mapping[bytes, bytes]) -> Media:
    """An upload from its hash."""
    text = {name.decode(): value.decode() for name, value in fields.items()}
    return Media(
        id=media_id,
        name=text["name"],
        content_type=text["content_type"],
        size_bytes=int(text["size_bytes"]),
        expire_s=int(text["expire_ms"]) / 1000,
        tenant=text.get("tenant", ""),
    )


def job_from_hash(job_id: str, fields: Mapping[bytes, bytes], prompt_updates: Sequence[bytes] = ()) -> Job:
    """A job from its hash, or as much of it as SUMMARY names, and its list of prompt updates."""
    text = {name.decode(): value.decode() for name, value in fields.items()}
    reason = text.get("error_reason")
    return Job(
        id=job_id,
        spec=_spec(text),
        state=JobState(text["state"]),
        chunks_total=int(text["chunks_total"]),
        chunks_done=int(text["chunks_done"]),
        attempts=int(text["attempts"]),
        revision=int(text["revision"]),
        created_s=int(text["created_ms"]) / 1000,
        started_s=_seconds(text.get("started_ms")),
        ended_s=_seconds(text.get("ended_ms")),
        error=JobFailure(reason=reason, message=text["error_message"]) if reason else None,
        artifact=text.get("artifact", ""),
        video_bytes=int(text.get("video_bytes", 0)),
        first_chunk=int(text.get("first_chunk", 0)),
        paused=bool(text.get("paused_ms")),
        trace=text.get("trace", ""),
        account=text.get("account", ""),
        deadline_s=_seconds(text.get("deadline_ms")),
        prompt_updates=tuple(map(prompt_from_entry, prompt_updates)),
    )


def _spec(text: Mapping[str, str]) -> JobSpec:
    """Whole, or a summary; of a job that an older release has just written, in a list, only what its record says."""
    said = text.get("spec") or text.get("summary")
    spec = {name: value for name, value in json.loads(said or "{}").items() if name in SPEC_FIELDS}
    known = {"model": text["model"], "params": {}, "chunks_total": int(text["chunks_total"])}
    return JobSpec(**known | spec | {"priority": Priority(text["priority"])})


def chunk_to_json(record: ChunkRecord) -> str:
    """JSON of everything but `ready_s`, which the server's clock sets."""
    return json.dumps({name: value for name, value in asdict(record).items() if name != "ready_s"})


def chunk_from_entry(entry: bytes) -> ChunkRecord:
    """A chunk record from an entry of the chunk log."""
    ready_ms, _, text = entry.partition(b" ")
    return ChunkRecord(**json.loads(text), ready_s=int(ready_ms) / 1000)


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None
