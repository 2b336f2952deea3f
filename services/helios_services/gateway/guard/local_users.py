"""Whose process has the other end of a loopback connection. Without API keys, only its own user's may call.

A port on loopback is open to every user of the machine. Linux tells whose a connection's socket is (sock_diag(7), asked
for one connection by its two ends); other systems are not asked, and nobody is told apart there.
"""

import os
import re
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import unquote

from helios_services.config import GatewayConfig
from helios_services.gateway.guard.refusal import Code, Refusal

ROOT = 0
_PEER = re.compile(r"ipv[46]:\[?([0-9a-f.:]+)\]?:(\d+)")
_SOCK_DIAG, _BY_FAMILY, _REQUEST, _TCP, _ESTABLISHED = 4, 20, 1, 6, 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, process
_QUESTION = struct.Struct("=BBBxI")  # inet_diag_req_v2: family, protocol, extensions, states
_ENDS = struct.Struct("!HH16s16s12s")  # inet_diag_sockid: ports, addresses, interface and cookie
_ANSWER = struct.Struct("=BBBB48sIIII")  # inet_diag_msg: family, state, ...; ends; expires, queues, user
_ANY = bytes(4) + b"\xff" * 8
Address = IPv4Address | IPv6Address


class LocalUsers:
    """Lets in, without a key and over loopback, only processes of the gateway's own user, and root's.

    port: the door's; to be set once it is bound.
    """

    def __init__(self, config: GatewayConfig) -> None:
        keyless = not config.api_keys_file and not config.tls_client_ca_file and not config.trust_local_users
        self._host = config.host
        self._asked = keyless and sys.platform == "linux" and _is_loopback(config.host)
        self.port = 0

    def check(self, peer: str) -> None:
        """peer: the client's address, as gRPC names it. Raises Refusal for another user's."""
        if self._asked and not is_ours(peer, self._host, self.port):
            text = "another user of this machine needs an API key (gateway.api_keys_file, gateway.trust_local_users)"
            raise Refusal(Code.UNAUTHENTICATED, text)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False  # another name: who is reached by it is not known


def is_ours(peer: str, host: str, port: int) -> bool:
    """Whether a process of this user, or root's, has the client's end of a connection to host:port, on loopback.

    peer: as gRPC names it: ipv4:127.0.0.1:40000 or ipv6:%5B::1%5D:40000. False for what cannot be found: the
    connection is gone, or came from elsewhere.
    """
    found = _PEER.fullmatch(unquote(peer))
    if found is None:
        return False
    client = _plain(ip_address(found[1]))
    if not client.is_loopback:
        return False
    user = _user(client, int(found[2]), _server(host, client), port)
    return user in (os.geteuid(), ROOT)


def _server(host: str, client: Address) -> Address:
    """The server's address as this client sees it: `localhost` has two."""
    if host == "localhost":
        return ip_address("127.0.0.1" if client.version == 4 else "::1")
    return _plain(ip_address(host))


def _user(client: Address, client_port: int, server: Address, server_port: int) -> int | None:
    """The user of the client's socket. Raises OSError if the kernel cannot be asked."""
    family = socket.AF_INET if client.version == 4 else socket.AF_INET6
    ends = _ENDS.pack(client_port, server_port, client.packed, server.packed, _ANY)
    question = _QUESTION.pack(family, _TCP, 0, 1 << _ESTABLISHED) + ends
    header = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.sendall(header + question)
        reply = kernel.recv(1 << 16)
    _, kind, *_ = _HEADER.unpack_from(reply)
    if kind != _BY_FAMILY:  # an error: no such connection
        return None
    family, state, _, _, found, *_, user = _ANSWER.unpack_from(reply, _HEADER.size)
    source_port, target_port, source, target, _ = _ENDS.unpack(found)
    exact = (source_port, target_port) == (client_port, server_port)
    exact = exact and (_address(source, family), _address(target, family)) == (client, server)
    return int(user) if state == _ESTABLISHED and exact else None


def _address(packed: bytes, family: int) -> Address:
    """A socket for both versions has its IPv4 addresses mapped."""
    return _plain(ip_address(packed[:4] if family == socket.AF_INET else packed))


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
