"""Holds all that is in Redis to the model."""

import json
from typing import Any

from helios_services.jobs import keys
from helios_services.jobs.state import FINAL
from services.jobs.model.dump import Dump
from services.jobs.model.job import ModelJob
from services.jobs.model.small_store import ACCOUNTS, JOBS
from services.jobs.model.store import Model

ENDLESS = {line.split("|")[1].strip().split(":")[0] for line in keys.__doc__.splitlines() if "| never: " in line}
"""Keys that keys.py lists as having no expiry."""
PLAIN_FIELDS = ("state", "chunks_done", "chunks_total", "chunks_started", "first_chunk", "attempts", "losses", "token")
"""Fields of a record that are called the same in the model."""


def check(model: Model, dump: Dump) -> None:
    """Redis holds what the model says, and everything goes away that is to go away."""
    found = {name: value for name, (_, value) in dump.items()}
    for job in model.jobs.values():
        _check_job(job, found)
    _check_queues(model, found)
    _check_sets(model, found)
    ended = {job.id for job in model.jobs.values() if job.ended} | model.forgotten
    for name, (expires, _) in dump.items():
        kind, _, rest = name.partition(":")
        if kind in ENDLESS:
            assert not expires, name
        elif kind in ("claim", "session", "share", "limits", "alone", "held", "video_ms"):
            assert expires, name
        else:
            owner = model.keys[rest] if kind == "idempotency" else rest.split(":")[0]
            assert expires == (owner in ended), name


def _check_job(job: ModelJob, found: dict[str, Any]) -> None:
    fields = {name.decode(): value.decode() for name, value in found[f"job:{job.id}"].items()}
    for name in PLAIN_FIELDS:
        assert fields[name] == str(getattr(job, name)), (job.id, name)
    assert fields.get("error_reason", "") == job.reason
    assert (fields["spec"] == fields["summary"]) == job.dropped
    assert ('"a lake"' in fields["spec"]) != job.dropped
    assert ("paused_ms" in fields, "stopping" in fields) == (job.paused, job.stopping)
    assert int(fields.get("chunks_read", 0)) == job.chunks_read
    assert ("ended_ms" in fields, "started_ms" in fields) == (job.ended, job.ever_claimed)
    assert int(fields["updates"]) == len(job.prompts) == len(found.get(f"prompts:{job.id}", ()))
    assert found.get(f"checkpoint:{job.id}") == job.checkpoint
    assert found.get(f"embeds:{job.id}", {}) == {key.encode(): data for key, data in job.embeds.items()}
    assert (f"session:{job.id}" in found) == (job.session and not job.client_gone)
    kept = range(job.first_chunk, job.chunks_done)
    numbers = [json.loads(entry.partition(b" ")[2])["index"] for entry in found.get(f"chunks:{job.id}", ())]
    assert numbers == list(kept)
    fragments = {name for name in found if name.startswith(f"fragment:{job.id}:")}
    assert fragments == {f"fragment:{job.id}:{index}" for index in kept}


def _check_queues(model: Model, found: dict[str, Any]) -> None:
    expected: dict[str, dict[bytes, float]] = {}
    for job in model.waiting():
        place = f"m:{job.priority}"
        for name in (f"queue:{place}", f"lane:{place}:{job.account.id}"):
            expected.setdefault(name, {})[job.id.encode()] = job.seq
        if model.in_line(job.account):
            expected.setdefault(f"lanes:{place}", {})[job.account.id.encode()] = model.share(job.account.id)
    barred = {job.account.id.encode() for job in model.waiting() if not model.in_line(job.account)}
    assert found.get("barred:m", set()) == barred
    kinds = ("queue", "lane", "lanes")
    assert {name: value for name, value in found.items() if name.partition(":")[0] in kinds} == expected
    shares = {name.decode(): float(value) for name, value in found.get("share:m", {}).items()}
    assert shares.pop(":clock", 0.0) == model.clock
    assert {name: share for name, share in shares.items() if share} == {
        name: share for name, share in model.shares.items() if share
    }


def _check_sets(model: Model, found: dict[str, Any]) -> None:
    jobs = model.jobs.values()
    for name, chosen in {
        "leases": [job for job in jobs if job.leased],
        "parked": [job for job in jobs if job.parked],
        "deadlines": [job for job in jobs if job.watched],
        "dead": [job for job in jobs if job.dead],
        "index": list(jobs),
    }.items():
        assert {member.decode() for member in found.get(name, ())} == {job.id for job in chosen}, name
    for worker in "xy":
        held = {job.id.encode() for job in jobs if job.leased and job.worker == worker}
        assert found.get(f"held:{worker}", set()) == held
    for account in ACCOUNTS:
        running = {job.id.encode() for job in jobs if job.leased and job.account == account}
        assert found.get(f"running:m:{account.id}", set()) == running
        own = {job.id: job for job in jobs if job.account == account}
        sizes = {job.id: job.record_bytes for job in own.values()}
        stored = {name.decode(): int(value) for name, value in found.get(f"storage:{account.id}", {}).items()}
        assert stored == (sizes | {":total": sum(sizes.values())} if sizes else {})
        assert sum(sizes.values()) <= JOBS.max_account_bytes
        left = model.left_output.get(account.id, {})
        made = {job.id: job.output_bytes for job in own.values() if job.output_bytes} | left
        counted = {name.decode(): int(value) for name, value in found.get(f"output:{account.id}", {}).items()}
        assert counted == (made | {":total": sum(made.values())} if made else {})
        expiring = {member.decode() for member in found.get(f"output_until:{account.id}", ())}
        assert expiring == {job.id for job in own.values() if job.ended and job.output_bytes} | set(left)
        assert (account.id.encode() in found.get("output_expiring", ())) >= bool(expiring)
        kept = {member.decode() for member in found.get(f"kept:{account.id}", ())}
        assert kept == {f"{account.id}:{job.id}" for job in own.values() if job.ended}
        assert (account.id.encode() in found.get("expiring", ())) >= bool(kept)
        dead = {member.decode() for member in found.get(f"tenant_dead:{account.id}", ())}
        assert dead == {job.id for job in own.values() if job.dead}
        assert {member.decode() for member in found.get(f"tenant:{account.id}", ())} == set(own)
        video = [int(value) for name, value in found.items() if name.startswith(f"video_ms:{account.id}:")]
        assert sum(video) == model.video_ms.get(account.id, 0)
    assert {state.decode(): int(count) for state, count in found.get("ended", {}).items()} == model.ended
    assert set(model.ended) <= set(FINAL)
    assert {name.partition(":")[2]: value.decode() for name, value in found.items() if "idempotency:" in name} == (
        model.keys
    )
