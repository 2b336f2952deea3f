"""The port for probes: health in plain text beside TLS, apart from the API and its limit on calls."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, HeliosError
from helios_services.config import ConfigError, ServiceConfig
from helios_services.gateway.grpc.door import LIVENESS
from helios_services.gateway.guard.caller import SCOPES
from helios_services.gateway.guard.metrics import CallMetrics
from support.authority import Authority
from support.gateway import serving

SERVING = health_pb2.HealthCheckResponse.SERVING


async def health(port: int, service: str) -> Any:
    """What a kubelet's probe sees."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)).status


async def test_probes_need_no_certificate_and_reach_nothing_but_health(config: ServiceConfig, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("gateway")
    options = {"tls_certificate_file": str(certificate), "tls_key_file": str(key)}
    async with serving(config, health_port=0, tls_client_ca_file=str(authority.file), **options) as gateway:
        for service in ("", LIVENESS):
            assert await health(gateway.health_port, service) == SERVING
        with pytest.raises(grpc.aio.AioRpcError):
            await health(gateway.port, "")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.health_port}") as channel:
            stub: Any = VideoGenerationStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListJobs(pb.ListJobsRequest())
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_gateway_that_is_full_is_not_dead(config: ServiceConfig) -> None:
    async with (
        serving(config, health_port=0, max_concurrent_rpcs=1) as gateway,
        AsyncHeliosClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        job = await client.submit("a lake")
        watching = client.watch(job.id)
        await anext(watching)
        with pytest.raises(HeliosError) as caught:
            await client.models()
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        for port in (gateway.port, gateway.health_port):
            assert await health(port, LIVENESS) == SERVING


async def test_a_watched_name_costs_a_stranger_no_more_than_a_name(config: ServiceConfig) -> None:
    """Health keeps it for as long as the call is open, and nobody asks for a key."""
    refused = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    async with serving(config, health_port=0) as gateway:
        for port in (gateway.port, gateway.health_port):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Watch(health_pb2.HealthCheckRequest(service="x" * 5000), timeout=60).read()
                assert caught.value.code() in refused
                watching = stub.Watch(health_pb2.HealthCheckRequest(service="x" * 4000), timeout=60)
                assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                watching.cancel()


async def test_a_taken_port_is_named(config: ServiceConfig) -> None:
    async with serving(config, health_port=0) as gateway:
        with pytest.raises(ConfigError, match=r"gateway\.health_port: \d+"):
            await serving(config, health_port=gateway.health_port).__aenter__()


def test_calls_in_progress_are_counted_from_the_first_scrape_on() -> None:
    registry = CollectorRegistry()
    CallMetrics(registry, "grpc")
    for method in SCOPES:  # an autoscaler takes a missing series for a missing gateway
        assert registry.get_sample_value("helios_grpc_active_requests", {"method": method}) == 0.0
