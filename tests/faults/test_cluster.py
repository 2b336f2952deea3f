"""The store and the service on a Redis Cluster of three nodes: nodes that die, slots that move."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from faults.conftest import Seen
from faults.quick_service import CHUNKS, QuickService
from faults.stand_in_worker import Harm

from helios.v1 import video_generation_pb2 as pb
from helios_engine.prompts import ScheduledPrompt
from helios_services.config import RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import LeaseLost
from helios_services.jobs.heartbeat import Heartbeat
from helios_services.jobs.notify import Notifier
from helios_services.jobs.records import Account, Control, Media
from helios_services.jobs.state import JobState
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_servers import RedisCluster
from support.waiting import until, wait_until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def redis(cluster: RedisCluster) -> RedisConfig:
    """A namespace of its own; the URL is of a node that does not have it, so that every call must find its way."""
    namespace = uuid4().hex
    owner = cluster.owner(f"helios:{{{namespace}}}:")
    other = next(node for node in cluster.nodes if node is not owner)
    return RedisConfig(url=other.url, cluster=True, namespace=namespace, socket_timeout_s=5.0)


@pytest.mark.fault(number=12, fault="every call of the store and its notifications, namespaces on all three nodes")
async def test_every_call_works_on_every_node(cluster: RedisCluster, seen: Seen) -> None:
    owners: set[int] = set()
    while len(owners) < len(cluster.nodes):
        config = RedisConfig(url=cluster.nodes[0].url, cluster=True, namespace=uuid4().hex, socket_timeout_s=30.0)
        owners.add((await asyncio.to_thread(cluster.owner, f"helios:{{{config.namespace}}}:")).port)
        await whole_life(config)
    seen("no CROSSSLOT; submit, claim, append, reclaim, finish, list, watch and renew on each node")


async def whole_life(config: RedisConfig) -> None:
    """Everything that the service asks of its store."""
    store, hasty = Connector(config, JOBS).store(), Connector(config, JOBS.model_copy(update={"lease_s": 0.05})).store()
    notifier, heartbeat = Notifier(config), Heartbeat(config, JOBS.model_copy(update={"heartbeat_s": 0.05}))
    await notifier.start()
    try:
        with notifier.queue("m") as arrivals, notifier.job("a") as changes:
            assert await arrivals.wait(60)  # subscribed
            await changes.wait(60)
            media = Media(id="m1", name="m1.png", content_type="image/png", size_bytes=3, expire_s=0.0)
            account = Account(id="a", max_uploads=2, max_upload_bytes=5)
            await store.reserve_media(media.name, 3, lease_s=60, max_files=5, account=account)
            await store.add_media(media, ttl_s=60, account=account)
            for _ in range(2):
                await store.submit("a", spec(chunks=2), idempotency_key="k")
            assert await arrivals.wait(60)
            assert await changes.wait(60)
        lost = await claim(hasty)
        await until(store.sweep)
        with pytest.raises(LeaseLost):
            await append(store, lost.lease, 0)
        lease = (await claim(store)).lease
        heartbeat.add(lease, lambda: None)
        await store.update_prompt("a", ScheduledPrompt(chunk_index=0, prompt="b"), "n")
        assert (await store.begin_chunk(lease, 0, 0)).prompt_updates[0].prompt == "b"
        await store.save_prompt_embeds(lease, "key", b"x", keep=())
        await store.control("a", Control.PAUSE)
        await store.control("a", Control.RESUME)
        for index in range(2):
            await append(store, lease, index)
        await store.begin_publish(lease)
        await store.succeed(lease, artifact="a.mp4", video_bytes=1)
        job = await store.get("a")
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 2)
        assert [record.index for record in await store.chunk_records(job)] == [0, 1]
        assert await store.fragment("a", 1) == b"f1"
        assert [listed.id for listed in (await store.page(limit=5)).jobs] == ["a"]
        assert sum((await store.depths("m")).values()) == (await store.work("m")).queued_jobs == 0
        assert await store.ended() == {JobState.SUCCEEDED: 1}
    finally:
        heartbeat.close()
        await notifier.close()
        await store.close()
        await hasty.close()


@pytest.mark.fault(number=12, fault="the namespace's slot moves to another node between two calls")
async def test_a_slot_that_has_moved_is_found(cluster: RedisCluster, redis: RedisConfig, seen: Seen) -> None:
    store, notifier = Connector(redis, JOBS).store(), Notifier(redis)
    await notifier.start()
    await store.submit("a", spec(chunks=2))
    lease = (await claim(store)).lease
    await append(store, lease, 0)
    source = await asyncio.to_thread(cluster.owner, f"helios:{{{redis.namespace}}}:")
    target = next(node for node in cluster.nodes if node is not source)
    slot = await asyncio.to_thread(cluster.slot, f"helios:{{{redis.namespace}}}:")
    moved = await asyncio.to_thread(cluster.move, slot, source, target)
    with notifier.job("a") as changes:
        await changes.wait(1)
        await append(store, lease, 1)
        assert await changes.wait(60)
    await store.begin_publish(lease)
    assert (await store.succeed(lease, artifact="x", video_bytes=1)).state is JobState.SUCCEEDED
    await notifier.close()
    await store.close()
    seen(f"{moved} keys moved; the same connections went on, lease and notifications too")


@pytest.mark.fault(number=12, fault="a service on the cluster; the node with its keys SIGKILLed in mid-job, restarted")
def test_a_service_on_a_cluster_outlives_its_node(
    cluster: RedisCluster, redis: RedisConfig, tmp_path: Path, seen: Seen
) -> None:
    owner = cluster.owner(f"helios:{{{redis.namespace}}}:")
    gate = tmp_path / "gate"
    with QuickService(tmp_path, owner.url, redis=redis.model_dump()) as service:
        service.worker()
        undisturbed = service.stream(service.submit())
        gate.touch()
        service.end_workers()
        service.worker(Harm(point="denoise 1", action="wait", gate=str(gate)))
        before = service.reached("denoise 1")
        jobs = [service.submit() for _ in range(5)]
        wait_until(lambda: service.reached("denoise 1") > before)
        owner.kill()
        gate.unlink()  # the chunk is made while there is no store
        owner.start()
        cluster.wait()
        attempts = [service.succeeded(job_id, undisturbed).attempts for job_id in jobs]
        assert service.client.get(jobs[-1]).state == pb.JOB_STATE_SUCCEEDED
    seen(f"{len(jobs)} of {len(jobs)} jobs, {CHUNKS} of {CHUNKS} chunks each, bit-identical; attempts {attempts}")
