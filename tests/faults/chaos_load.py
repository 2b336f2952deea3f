"""Clients of the chaos run: they submit, stream, cancel and change prompts, and go on wherever a call fails."""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client.calls import submission
from helios_services.client.segments import Assembler

CLIENTS = 6
MAX_CHUNKS = 5
CALL_S, STREAM_S = 5.0, 15.0
"""How long a call may take before a client gives it up and makes it again."""
EXPECTED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
}
"""The last two are final answers; after the others the call is made again."""


class Load:
    """Threads that each play one client after the other. What they were told is what is checked in the end."""

    def __init__(self, addresses: list[str], seed: int) -> None:
        self._addresses = addresses
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.accepted: dict[str, int] = {}
        """Chunks by job id."""
        self.cancelled: set[str] = set()
        """Jobs that someone asked to cancel."""
        self.requeued = 0
        self.streamed = 0
        self.wrong: list[str] = []
        self._fragments: dict[int, bytes] = {}
        self._threads = [
            threading.Thread(target=self._guarded, args=(self._client, random.Random(f"{seed}/{number}"), number))
            for number in range(CLIENTS)
        ]
        self._threads.append(threading.Thread(target=self._guarded, args=(self._operator, random.Random(seed), 0)))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets the clients finish what they are at: whoever submits goes on until there is an answer."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def stub(self, chance: random.Random) -> tuple[Any, grpc.Channel]:
        """A gateway of one's choice."""
        channel = grpc.insecure_channel(chance.choice(self._addresses), options=[("grpc.use_local_subchannel_pool", 1)])
        return VideoGenerationStub(channel), channel

    def _guarded(self, play: Callable[[random.Random, int], None], chance: random.Random, number: int) -> None:
        try:
            play(chance, number)
        except Exception as error:  # a thread's failure must fail the run
            self.wrong.append(f"{play.__name__} {number}: {error!r}")

    def _client(self, chance: random.Random, number: int) -> None:
        count = 0
        while not self._over.is_set():
            count += 1
            job_id, chunks = self._submit(chance, f"{number}-{count}")
            what = chance.choice(("stream", "stream", "cancel", "prompt", "leave"))
            if what == "stream":
                self._stream(chance, job_id, chunks)
            elif what == "cancel":
                time.sleep(chance.uniform(0.0, 0.5))
                self.cancelled.add(job_id)
                self._call(chance, "CancelJob", pb.CancelJobRequest(job_id=job_id))
            elif what == "prompt":
                update = pb.UpdatePromptRequest(job_id=job_id, prompt="a storm comes up")
                self._call(chance, "UpdatePrompt", update)
            time.sleep(chance.uniform(0.0, 0.4))

    def _operator(self, chance: random.Random, _: int) -> None:
        while not self._over.wait(1.0):
            self.requeue(chance)

    def requeue(self, chance: random.Random) -> int:
        """Queues all dead letters again; how many there were."""
        listed = self._call(chance, "ListJobs", pb.ListJobsRequest(dead_letters=True))
        for job in listed.jobs if listed is not None else ():
            answer = self._call(chance, "RequeueJob", pb.RequeueJobRequest(job_id=job.id))
            self.requeued += answer is not None
        return len(listed.jobs) if listed is not None else 0

    def _submit(self, chance: random.Random, key: str) -> tuple[str, int]:
        """One key is one job, however often it is submitted."""
        chunks = chance.randint(1, MAX_CHUNKS)
        priority = chance.choice(("interactive", "normal", "batch"))
        request = submission(
            "a lake",
            priority=priority,
            idempotency_key=key,
            num_frames=33 * chunks,
            height=64,
            width=64,
            seed=3,
            pyramid_steps=[1, 1, 1],
        )
        ids = set[str]()
        for _ in range(chance.choice((1, 1, 2))):
            job = self._call(chance, "SubmitJob", request)
            assert job is not None, "a submission was refused for good"
            ids.add(job.id)
        assert len(ids) == 1, f"key {key} made {len(ids)} jobs"
        (job_id,) = ids
        with self._lock:
            assert job_id not in self.accepted, f"two keys share job {job_id}"
            self.accepted[job_id] = chunks
        return job_id, chunks

    def _stream(self, chance: random.Random, job_id: str, chunks: int) -> None:
        """Reads to the last chunk, over as many connections as it takes."""
        assembler, seen = Assembler(), list[int]()
        while len(seen) < chunks and not self._over.is_set():
            stub, channel = self.stub(chance)
            try:
                wanted = pb.StreamVideoRequest(job_id=job_id, from_chunk=assembler.next_chunk)
                for part in stub.StreamVideo(wanted, timeout=STREAM_S):
                    segment = assembler.add(part)
                    if segment is not None and segment.info is not None:
                        seen.append(segment.info.index)
                        self._same(segment.info.index, segment.data)
            except grpc.RpcError as error:
                if _code(error) is grpc.StatusCode.ABORTED:
                    return  # failed for now: the operator queues it again
                assembler.restart()
                time.sleep(0.1)
            finally:
                channel.close()
        assert seen == list(range(len(seen))), f"job {job_id} was streamed as {seen}"
        self.streamed += len(seen) == chunks

    def _same(self, index: int, data: bytes) -> None:
        """Whoever made it, a chunk's bits are the same."""
        with self._lock:
            assert self._fragments.setdefault(index, data) == data, f"chunk {index} has other bits"

    def _call(self, chance: random.Random, method: str, request: Any) -> Any:
        """Until there is an answer; None for a refusal that repeating does not change."""
        while True:
            stub, channel = self.stub(chance)
            try:
                return getattr(stub, method)(request, timeout=CALL_S)
            except grpc.RpcError as error:
                if _code(error) is grpc.StatusCode.FAILED_PRECONDITION:
                    return None
                time.sleep(0.1)
            finally:
                channel.close()


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    """The code of a call that failed in a way that is expected."""
    assert isinstance(error, grpc.Call)
    assert error.code() in EXPECTED, error
    return error.code()
