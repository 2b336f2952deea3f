"""A gateway in a process of its own, over a real Redis, and what has to be true of it after every case."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.config import ServiceConfig
from support.processes import GatewayProcess

SERVICE = pb.DESCRIPTOR.services_by_name["VideoGeneration"]
CODE = grpc.StatusCode
CALLERS_FAULT = {
    CODE.OK,
    CODE.INVALID_ARGUMENT,
    CODE.NOT_FOUND,
    CODE.FAILED_PRECONDITION,
    CODE.OUT_OF_RANGE,
    CODE.RESOURCE_EXHAUSTED,
    CODE.ALREADY_EXISTS,
    CODE.UNIMPLEMENTED,
}
FOLLOWING = {CODE.DEADLINE_EXCEEDED, CODE.CANCELLED}
"""What a call that follows a job may end with: this side's patience ended, or the job was cancelled."""
PATIENCE_S, TIMEOUT_S = 0.2, 60.0
WHOLE_JOB_EVERY = 50


class Target:
    """The gateway under fuzz."""

    def __init__(self, config: ServiceConfig, log: Path) -> None:
        self._gateway = GatewayProcess(config, log)
        self.port, self.http = self._gateway.port, self._gateway.http
        self.http_port = int(self.http.rpartition(":")[2])
        self.channel = grpc.insecure_channel(self._gateway.address)
        self.stub: Any = VideoGenerationStub(self.channel)
        self.cases = 0
        self.ids = self._jobs()

    def close(self) -> None:
        """Ends the process and checks that it served to the end, and well."""
        alive = self._gateway.alive
        self.channel.close()
        self._gateway.close()
        assert alive
        assert "call_failed" not in self._gateway.log.read_text()

    def call(self, method: MethodDescriptor, requests: Iterable[bytes]) -> grpc.StatusCode:
        """Makes a call from serialised requests and reads some of its answer; its code."""
        path = f"/{SERVICE.full_name}/{method.name}"
        parse = GetMessageClass(method.output_type).FromString
        bodies = list(requests)
        channel: Any = self.channel  # the stubs know serializers only
        call: Any
        if method.server_streaming:
            make = channel.stream_stream if method.client_streaming else channel.unary_stream
            call = make(path, None, parse)(iter(bodies) if method.client_streaming else bodies[0], timeout=PATIENCE_S)
        elif method.client_streaming:
            call = channel.stream_unary(path, None, parse).future(iter(bodies), timeout=TIMEOUT_S)
        else:
            call = channel.unary_unary(path, None, parse).future(bodies[0], timeout=TIMEOUT_S)
        try:
            if method.server_streaming:
                for _ in call:
                    pass
            else:
                call.result()
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return CODE.OK

    def check_answer(self, method: MethodDescriptor, code: grpc.StatusCode) -> None:
        """A canonical code that blames the caller, or none."""
        assert code in (CALLERS_FAULT | FOLLOWING if method.server_streaming else CALLERS_FAULT), code

    def check_serving(self) -> None:
        """The next good request is answered; now and then a whole job is taken and cancelled."""
        assert self._gateway.alive, self._gateway.log.read_text()[-2000:]
        assert self.stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S).models
        self.cases += 1
        if self.cases % WHOLE_JOB_EVERY == 0:
            job = self._submit()
            assert self._cancel(job.id).state == pb.JOB_STATE_CANCELLED

    def _jobs(self) -> tuple[str, ...]:
        queued, live, cancelled = self._submit(), self._submit(open_ended=True), self._submit()
        self._cancel(cancelled.id)
        return queued.id, live.id, cancelled.id, queued.model

    def _submit(self, **params: Any) -> pb.Job:
        request = pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a lake", **params))
        job: pb.Job = self.stub.SubmitJob(request, timeout=TIMEOUT_S)
        return job

    def _cancel(self, job_id: str) -> pb.Job:
        job: pb.Job = self.stub.CancelJob(pb.CancelJobRequest(job_id=job_id), timeout=TIMEOUT_S)
        return job
