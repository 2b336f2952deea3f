"""What is delivered over HTTP: files and their ranges, growing files, events, playlists."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from helios_services.config import ServiceConfig
from helios_services.gateway.calls import playback
from helios_services.gateway.http import events as http_events
from helios_services.gateway.http.ranges import Span, wanted
from helios_services.gateway.server import Gateway
from helios_services.jobs.reader import JobReader
from services.gateway.conftest import Worker, fragment
from support.gateway import serving
from support.waiting import until

SMALL = 1000
VIDEO = bytes(range(256)) * 40


async def submitted(http: httpx.AsyncClient, **params: Any) -> str:
    """The id of a video of two chunks."""
    body = {"prompt": "a lake", "helios": {"params": {"num_frames": 66} | params}}
    answer = await http.post("/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    video_id: str = answer.json()["id"]
    return video_id


@pytest.fixture
async def finished(http: httpx.AsyncClient, worker: Worker, tmp_path: Path) -> str:
    """The id of a finished video, whose file is VIDEO."""
    video_id = await submitted(http)
    claim = await worker.claim()
    for index in range(2):
        await worker.append(claim, index, SMALL)
    await worker.publish(claim, VIDEO, tmp_path)
    return video_id


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("", None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=5-", Span(5, 100)),
        ("bytes=-7", Span(93, 100)),
        ("bytes=-700", Span(0, 100)),
        ("bytes=90-900", Span(90, 100)),
        ("bytes=0-1,5-6", None),
        ("bytes=9-3", None),
        ("bytes=-", None),
        ("chunks=1-2", None),
        ("bytes=1-" + "9" * 30, None),
        ("bytes=100-", ValueError),
        ("bytes=-0", ValueError),
    ],
)
def test_ranges(header: str, span: Span | type[ValueError] | None) -> None:
    if span is ValueError:
        with pytest.raises(ValueError):
            wanted(header, 100)
    else:
        assert wanted(header, 100) == span


async def test_a_finished_file_and_its_parts(http: httpx.AsyncClient, finished: str) -> None:
    path = f"/v1/videos/{finished}/content"
    whole = await http.get(path)
    assert (whole.status_code, whole.content) == (200, VIDEO)
    assert whole.headers["Content-Length"] == str(len(VIDEO))
    assert whole.headers["Content-Disposition"] == f'attachment; filename="{finished}.mp4"'
    tag = whole.headers["ETag"]
    part = await http.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, VIDEO[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(VIDEO)}"
    for headers, status in (
        ({"If-None-Match": tag}, 304),
        ({"Range": "bytes=0-1", "If-Range": tag}, 206),
        ({"Range": "bytes=0-1", "If-Range": '"other"'}, 200),
    ):
        assert (await http.get(path, headers=headers)).status_code == status, headers
    beyond = await http.get(path, headers={"Range": f"bytes={len(VIDEO)}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(VIDEO)}")
    assert beyond.json()["error"]["code"] == "out_of_range"
    head = await http.head(path)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(VIDEO)), b"")
    assert (await http.get(path, params={"variant": "thumbnail"})).json()["error"]["param"] == "variant"


async def test_a_video_without_a_file_says_why(http: httpx.AsyncClient, worker: Worker) -> None:
    video_id = await submitted(http)
    await worker.store.cancel(video_id)
    answer = await http.get(f"/v1/videos/{video_id}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "failed_precondition")
    assert (await http.get(f"/v1/videos/{video_id}")).json()["error"]["code"] == "cancelled"


async def test_a_file_that_grows_is_delivered_as_it_grows(http: httpx.AsyncClient, worker: Worker) -> None:
    video_id = await submitted(http)
    claim = await worker.claim()
    await worker.append(claim, 0, SMALL)
    async with http.stream("GET", f"/v1/videos/{video_id}/content") as answer:
        pieces = answer.aiter_bytes(1)
        first = b"".join([await anext(pieces) for _ in range(4 + SMALL)])
        assert first == b"init" + fragment(0, SMALL)
        await worker.append(claim, 1, SMALL)
        assert b"".join([piece async for piece in pieces]) == fragment(1, SMALL)


async def test_a_file_that_will_not_grow_any_more_is_cut_off(http: httpx.AsyncClient, worker: Worker) -> None:
    video_id = await submitted(http)
    claim = await worker.claim()
    await worker.append(claim, 0, SMALL)
    async with http.stream("GET", f"/v1/videos/{video_id}/content") as answer:
        pieces = answer.aiter_bytes()
        await anext(pieces)
        await worker.store.cancel(video_id)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in pieces:
                pass


async def test_a_reader_that_stalls_holds_no_more_than_a_few_chunks(
    http: httpx.AsyncClient, gateway: Gateway, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the second chunk the sockets between are full: the others stay in the store until they are wanted."""
    read = []
    plain = JobReader.fragment

    async def counted(self: JobReader, job_id: str, index: int) -> bytes:
        read.append(index)
        return await plain(self, job_id, index)

    monkeypatch.setattr(JobReader, "fragment", counted)
    size, chunks = 8_000_000, 8
    video_id = await submitted(http, num_frames=33 * chunks)
    claim = await worker.claim()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port, limit=65536)
    writer.write(f"GET /v1/videos/{video_id}/content HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    for index in range(chunks):
        await worker.append(claim, index, size)
    await until(lambda: len(read) >= 1)
    for _ in range(20):  # turns in which a stream without back-pressure would read on
        await http.get("/healthz")
    assert len(read) <= 3
    assert b" 200 " in await reader.readline()
    while await reader.readline() != b"\r\n":
        pass
    digest, received = hashlib.sha256(), 0
    while length := int(await reader.readline(), 16):
        digest.update(await reader.readexactly(length))
        received += length
        await reader.readline()
    expected = hashlib.sha256(b"init")
    for index in range(chunks):
        expected.update(fragment(index, size))
    assert (received, digest.digest()) == (4 + chunks * size, expected.digest())
    assert read == list(range(chunks))
    writer.close()


async def next_event(lines: Any) -> dict[str, Any]:
    """The next event's fields; its data as JSON."""
    event: dict[str, Any] = {}
    async for line in lines:
        name, _, value = line.partition(": ")
        if not line and "data" in event:
            return event
        event[name] = json.loads(value) if name == "data" else value
    raise AssertionError("the events ended")


async def test_events_go_on_where_they_were_cut(http: httpx.AsyncClient, worker: Worker, tmp_path: Path) -> None:
    video_id = await submitted(http)
    path = f"/v1/videos/{video_id}/events"
    async with http.stream("GET", path) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        queued = await next_event(lines)
        claim = await worker.claim()
        running = await next_event(lines)
    assert (queued["data"]["status"], running["data"]["status"]) == ("queued", "in_progress")
    await worker.append(claim, 0, SMALL)
    async with http.stream("GET", path, headers={"Last-Event-ID": running["id"]}) as answer:
        lines = answer.aiter_lines()
        event = await next_event(lines)
        assert (event["data"]["progress"], event["data"]["helios"]["chunks_done"]) == (50, 1)
        assert int(event["id"]) > int(running["id"])
        await worker.append(claim, 1, SMALL)
        await worker.publish(claim, VIDEO, tmp_path)
        while event["data"]["status"] != "completed":
            event = await next_event(lines)
        assert [line async for line in lines] == []
    again = await http.get(path, headers={"Last-Event-ID": event["id"]})
    assert again.status_code == 204
    bad = await http.get(path, headers={"Last-Event-ID": "x"})
    assert bad.json()["error"]["param"] == "Last-Event-ID"


async def test_waiting_events_show_that_they_live(
    http: httpx.AsyncClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_events, "ALIVE_S", 0.05)
    video_id = await submitted(http)
    async with http.stream("GET", f"/v1/videos/{video_id}/events") as answer:
        async for line in answer.aiter_lines():
            if line == ": alive":
                break


async def test_streams_of_clients_that_have_gone_are_ended(http: httpx.AsyncClient, gateway: Gateway) -> None:
    video_id = await submitted(http)

    def active(method: str) -> float | None:
        labels = {"method": method}
        return gateway.metrics.registry.get_sample_value("helios_http_active_requests", labels)

    for path, method in (("events", "WatchJob"), ("content", "DownloadVideo"), ("hls/index.m3u8", "StreamVideo")):
        waiting = asyncio.create_task(http.get(f"/v1/videos/{video_id}/{path}"))
        await until(lambda method=method: active(method) == 1)  # type: ignore[misc]
        waiting.cancel()
        await until(lambda method=method: active(method) == 0)  # type: ignore[misc]


async def test_streams_end_with_the_gateway(config: ServiceConfig, worker: Worker) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        async with serving(config) as gateway:
            http.base_url = httpx.URL(f"http://127.0.0.1:{gateway.http_port}")
            video_id = await submitted(http)
            claim = await worker.claim()
            await worker.append(claim, 0, SMALL)
            request = http.build_request("GET", f"/v1/videos/{video_id}/content")
            growing = await http.send(request, stream=True)
            events = await http.send(http.build_request("GET", f"/v1/videos/{video_id}/events"), stream=True)
            assert growing.status_code == events.status_code == 200
        text = (await events.aread()).decode()
        assert '"code":"unavailable"' in text
        with pytest.raises(httpx.RemoteProtocolError):
            await growing.aread()


async def test_a_reader_that_stalls_does_not_keep_the_gateway(config: ServiceConfig, worker: Worker) -> None:
    async with serving(config) as gateway:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http:
            video_id = await submitted(http)
        await worker.append(await worker.claim(), 0, 20_000_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port, limit=1024)
        writer.write(f"GET /v1/videos/{video_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(20_000_000)
    writer.close()


async def playlist(http: httpx.AsyncClient, video_id: str, query: str = "") -> list[str]:
    """The playlist's lines."""
    answer = await http.get(f"/v1/videos/{video_id}/hls/index.m3u8{query}")
    assert answer.status_code == 200, answer.text
    return answer.text.splitlines()


async def test_a_playlist_grows_to_its_end(http: httpx.AsyncClient, worker: Worker) -> None:
    video_id = await submitted(http)
    claim = await worker.claim()
    waiting = asyncio.create_task(playlist(http, video_id))  # for the first chunk
    await worker.append(claim, 0, SMALL)
    lines = await waiting
    assert lines[:6] == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-TARGETDURATION:2",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
    ]
    assert lines[-3:] == ['#EXT-X-MAP:URI="init.mp4"', "#EXTINF:1.37500,", "0.m4s"]
    waiting = asyncio.create_task(playlist(http, video_id, "?_HLS_msn=1"))
    await worker.append(claim, 1, SMALL)
    assert (await waiting)[-3:] == ["#EXTINF:1.37500,", "1.m4s", "#EXT-X-ENDLIST"]
    base = f"/v1/videos/{video_id}/hls"
    assert (await http.get(f"{base}/init.mp4")).content == b"init"
    assert (await http.get(f"{base}/1.m4s")).content == fragment(1, SMALL)
    for path, status in (("2.m4s", 410), ("x.m4s", 400), ("-1.m4s", 400), ("0.mp4", 404), ("99999999999.m4s", 400)):
        assert (await http.get(f"{base}/{path}")).status_code == status, path


async def test_a_viewers_token_is_in_every_address(http: httpx.AsyncClient, worker: Worker) -> None:
    video_id = await submitted(http)
    await worker.append(await worker.claim(), 0, SMALL)
    lines = await playlist(http, video_id, "?token=a%26b")
    assert ('#EXT-X-MAP:URI="init.mp4?token=a%26b"' in lines, lines[-1]) == (True, "0.m4s?token=a%26b")


async def test_a_token_for_one_video_opens_its_playlist_and_no_other(
    config: ServiceConfig, keys: dict[str, str], worker: Worker, tmp_path: Path
) -> None:
    (tmp_path / "secrets").write_text("s" * 64 + "\n")
    options = {"api_keys_file": str(tmp_path / "keys.yaml"), "token_secrets_file": str(tmp_path / "secrets")}
    async with (
        serving(config, **options) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}", timeout=60) as http,
    ):
        alice = {"Authorization": keys["alice"]}
        ids = [(await http.post("/v1/videos", json={"prompt": "a"}, headers=alice)).json()["id"] for _ in range(2)]
        for _ in ids:
            await worker.append(await worker.claim(), 0, SMALL)
        made = await http.post("/v1/realtime/tokens", json={"job_id": ids[0], "scopes": ["read"]}, headers=alice)
        token = made.json()["token"]
        lines = await playlist(http, ids[0], f"?token={token}")
        base = f"/v1/videos/{ids[0]}/hls"
        assert (await http.get(f"{base}/{lines[-1]}")).content == fragment(0, SMALL)
        assert (await http.get(f"/v1/videos/{ids[1]}/hls/index.m3u8", headers=alice)).status_code == 200
        for path, status in (
            (f"/v1/videos/{ids[1]}/hls/index.m3u8?token={token}", 404),
            (f"/v1/videos/{ids[1]}/hls/0.m4s?token={token}", 404),
            (f"{base}/0.m4s", 401),
            (f"{base}/0.m4s?token={keys['alice'].split()[1]}", 401),
            (f"/v1/videos/{ids[0]}/content?token={token}", 401),
        ):
            assert (await http.get(path)).status_code == status, path
        listed = await http.get("/v1/videos", headers={"Authorization": f"Bearer {token}"})
        assert listed.status_code == 403


async def test_an_endless_playlist_is_a_window(http: httpx.AsyncClient, worker: Worker) -> None:
    answer = await http.post("/v1/videos", json={"prompt": "a", "helios": {"params": {"open_ended": True}}})
    assert answer.json()["seconds"] == "0"
    claim = await worker.claim()
    for index in range(12):
        await worker.append(claim, index, SMALL)
    lines = await playlist(http, answer.json()["id"])
    assert "#EXT-X-MEDIA-SEQUENCE:4" in lines
    assert lines[-1] == "11.m4s"
    assert not [line for line in lines if "EVENT" in line or "ENDLIST" in line]


async def test_a_playlist_of_nothing_is_refused_after_a_while(
    http: httpx.AsyncClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playback, "HOLD_S", 0.1)
    video_id = await submitted(http)
    path = f"/v1/videos/{video_id}/hls/index.m3u8"
    assert (await http.get(path)).status_code == 503
    monkeypatch.undo()
    await worker.append(await worker.claim(), 0, SMALL)
    assert (await http.get(path, params={"_HLS_msn": 9})).json()["error"]["param"] == "_HLS_msn"
    monkeypatch.setattr(playback, "HOLD_S", 0.1)
    assert (await playlist(http, video_id, "?_HLS_msn=1"))[-1] == "0.m4s"
    await worker.store.cancel(video_id)
    await until(lambda: _ended(http, video_id))


async def _ended(http: httpx.AsyncClient, video_id: str) -> bool:
    return (await playlist(http, video_id))[-1] == "#EXT-X-ENDLIST"


async def test_many_viewers_cost_one_read(
    http: httpx.AsyncClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    video_id = await submitted(http)
    claim = await worker.claim()
    await worker.append(claim, 0, SMALL)
    read = []
    plain = JobReader._bytes

    async def counted(self: JobReader, *parts: str | int) -> bytes:
        read.append(parts)
        return await plain(self, *parts)

    monkeypatch.setattr(JobReader, "_bytes", counted)
    for _ in range(3):
        answers = await asyncio.gather(*(http.get(f"/v1/videos/{video_id}/hls/0.m4s") for _ in range(20)))
        assert {answer.content for answer in answers} == {fragment(0, SMALL)}
    assert read == [("fragment", video_id, 0)]


async def test_a_deleted_video_leaves_the_viewers_soon(
    http: httpx.AsyncClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playback, "KEPT_S", 0.0)
    video_id = await submitted(http)
    await worker.append(await worker.claim(), 0, SMALL)
    path = f"/v1/videos/{video_id}/hls/0.m4s"
    assert (await http.get(path)).status_code == 200
    await http.delete(f"/v1/videos/{video_id}")
    assert (await http.get(path)).status_code == 404


async def test_a_video_within_a_request(http: httpx.AsyncClient, worker: Worker, tmp_path: Path) -> None:
    body = {"prompt": "a lake", "helios": {"params": {"num_frames": 33}}}
    waiting = asyncio.create_task(http.post("/v1/videos/sync", json=body))
    await until(lambda: _queued(http))
    claim = await worker.claim()
    await worker.append(claim, 0, SMALL)
    await worker.publish(claim, VIDEO, tmp_path)
    answer = await waiting
    assert (answer.status_code, answer.content) == (200, b"init" + fragment(0, SMALL))
    assert answer.headers["Location"] == f"/v1/videos/{claim.job.id}"
    bad = await http.post("/v1/videos/sync", json={"prompt": "a lake", "size": "x"})
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "size")
    waiting = asyncio.create_task(http.post("/v1/videos/sync", json=body))
    await until(lambda: _queued(http))
    await worker.claim()
    waiting.cancel()
    await until(lambda: _newest_is(http, "cancelled"))
    refused = asyncio.create_task(http.post("/v1/videos/sync", json=body))
    await until(lambda: _queued(http))
    await worker.store.cancel((await worker.claim()).job.id)
    answer = await refused
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "JOB_CANCELLED")


async def _queued(http: httpx.AsyncClient) -> bool:
    newest = (await http.get("/v1/videos", params={"limit": 1})).json()["data"]
    return [video["status"] for video in newest] == ["queued"]


async def _newest_is(http: httpx.AsyncClient, code: str) -> bool:
    (newest,) = (await http.get("/v1/videos", params={"limit": 1})).json()["data"]
    return newest["error"] is not None and newest["error"]["code"] == code


async def test_remixes_and_extensions(http: httpx.AsyncClient, finished: str) -> None:
    source = (await http.get(f"/v1/videos/{finished}")).json()
    remix = (await http.post(f"/v1/videos/{finished}/remix", json={"prompt": "a sea", "size": "128x128"})).json()
    assert (remix["prompt"], remix["remixed_from_video_id"], remix["size"]) == ("a sea", finished, "128x128")
    for field in ("seed", "num_frames", "pyramid_steps"):
        assert remix["helios"]["params"][field] == source["helios"]["params"][field]
    body = {"prompt": "it goes on", "seconds": "1", "video": {"id": finished}}
    longer = (await http.post("/v1/videos/extensions", json=body)).json()
    assert (longer["helios"]["params"]["continue_from"], longer["seconds"]) == (finished, "1.375")
    clip = {"video": ("a.mp4", b"clip", "video/mp4")}
    of_clip = (await http.post("/v1/videos/extensions", data={"prompt": "on", "seconds": "1"}, files=clip)).json()
    assert of_clip["helios"]["params"]["video_id"]
    for path, bad, field in (
        (f"{finished}/remix", {}, "prompt"),
        (f"{finished}/remix", {"prompt": "a", "model": "x"}, "model"),
        ("extensions", {"prompt": "a"}, "video"),
        ("extensions", {"prompt": "a", "video": finished}, "video"),
        ("extensions", {"prompt": "a", "video": {"id": finished}, "size": "64x64"}, "size"),
    ):
        answer = await http.post(f"/v1/videos/{path}", json=bad)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field), answer.text
    for path, bad in (("nothing/remix", {"prompt": "a"}), ("extensions", {"prompt": "a", "video": {"id": "nothing"}})):
        assert (await http.post(f"/v1/videos/{path}", json=bad)).status_code == 404
