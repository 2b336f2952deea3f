"""Without keys a gateway on loopback is its own user's: others of the machine are told apart by their sockets."""

import os
import pwd
import socket
from collections.abc import Iterator

import pytest

from helios_services.config import GatewayConfig
from helios_services.gateway.guard.local_users import LocalUsers
from helios_services.gateway.guard.refusal import Code, Refusal

NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture(params=["127.0.0.1", "::1", "localhost"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(host: str) -> Iterator[socket.socket]:
    """For both versions of IP, as gRPC listens."""
    address = "::1" if host == "::1" else "::ffff:127.0.0.1"
    with socket.socket(socket.AF_INET6) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((address, 0))
        server.listen()
        yield server


def users(host: str, server: socket.socket, **options: str | bool) -> LocalUsers:
    local_users = LocalUsers(GatewayConfig(host=host, **options))
    local_users.port = server.getsockname()[1]
    return local_users


def peer_of(connection: socket.socket) -> str:
    """As gRPC names it."""
    address, port = connection.getpeername()[:2]
    mapped = address.removeprefix("::ffff:")
    return f"ipv4:{mapped}:{port}" if "." in mapped else f"ipv6:%5B{address}%5D:{port}"


def connected(server: socket.socket, family: int, user_id: int | None = None) -> tuple[socket.socket, socket.socket]:
    """A client's socket, made by another user if `user_id` is given, and the server's end."""
    address, port = server.getsockname()[:2]
    address = address if family == socket.AF_INET6 else address.removeprefix("::ffff:")
    before = os.geteuid()
    if user_id is not None:
        os.seteuid(user_id)
    try:
        client = socket.socket(family)
    finally:
        os.seteuid(before)
    if family == socket.AF_INET6:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    client.connect((address, port))
    return client, server.accept()[0]


def families(host: str) -> list[int]:
    return [socket.AF_INET6] if host == "::1" else [socket.AF_INET, socket.AF_INET6]


def test_the_own_user_may_call(host: str, server: socket.socket) -> None:
    for family in families(host):
        client, accepted = connected(server, family)
        with client, accepted:
            users(host, server).check(peer_of(accepted))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make sockets of another user")
def test_another_user_may_not(host: str, server: socket.socket) -> None:
    for family in families(host):
        client, accepted = connected(server, family, NOBODY)
        with client, accepted:
            with pytest.raises(Refusal, match="another user of this machine needs an API key") as caught:
                users(host, server).check(peer_of(accepted))
            assert caught.value.code == Code.UNAUTHENTICATED
            for open_to_all in (
                {"trust_local_users": True},
                {"api_keys_file": "keys.yaml"},  # the key says who calls
                {"tls_client_ca_file": "ca.pem"},  # the certificate does
            ):
                users(host, server, **open_to_all).check(peer_of(accepted))


def test_a_gateway_for_other_machines_does_not_ask(server: socket.socket) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "gateway.example"):
        users(host, server).check("ipv4:192.0.2.7:50000")


def test_what_cannot_be_found_is_nobody_known(host: str, server: socket.socket) -> None:
    client, accepted = connected(server, socket.AF_INET6)
    gone = peer_of(accepted)
    client.close()
    accepted.close()
    port = server.getsockname()[1]
    for peer in (gone, f"ipv4:127.0.0.1:{port}", "ipv4:192.0.2.7:50000", "unix:/tmp/x", "", "ipv4:nonsense:1"):
        with pytest.raises(Refusal):
            users(host, server).check(peer)
