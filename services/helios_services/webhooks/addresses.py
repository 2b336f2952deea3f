"""Which addresses webhooks go to: looked at for each connection, after its name was resolved: no name leads astray."""

import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import structlog

log = structlog.get_logger(__name__)
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as hosts without IPv4 reach them, in the last 32 bits."""
UNICAST = IPv6Network("2000::/3")
"""What is given out of IPv6 to the internet's hosts."""
SPECIAL = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
            *("203.0.113.0/24", "224.0.0.0/3", "168.63.129.16/32"),
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    )
)
"""Not the internet's hosts: IANA's special-purpose registries, and an address by which Azure's machines reach Azure."""


class NotPublic(OSError):
    """The address is not one that webhooks may go to."""


def sockets(internal: Collection[str]) -> Callable[[Any], socket.socket]:
    """Makes aiohttp's sockets for addresses of the internet, and of these networks.

    What it makes raises NotPublic for others.
    """
    networks = [ip_network(network) for network in internal]

    def make(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        host = str(address[0]).partition("%")[0]
        if not allowed(host, networks):
            log.warning("webhook_address_refused", address=host)
            raise NotPublic(f"{host} is no public address, and none of webhooks.internal_networks")
        return socket.socket(family, kind, protocol)

    return make


def allowed(host: str, networks: Collection[Network]) -> bool:
    """Whether an address may be called."""
    try:
        address = _meant(ip_address(host))
    except ValueError:  # of another family
        return False
    if any(address in network for network in networks):
        return True
    ordinary = isinstance(address, IPv4Address) or address in UNICAST
    return ordinary and not any(address in network for network in SPECIAL)


def _meant(address: Address) -> Address:
    """Itself, or the IPv4 address that it stands for."""
    if isinstance(address, IPv4Address):
        return address
    return IPv4Address(address.packed[12:]) if address in NAT64 else address.ipv4_mapped or address
