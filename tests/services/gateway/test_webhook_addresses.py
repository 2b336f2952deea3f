"""Which addresses webhooks may go to, of every family and in every disguise."""

import socket
from ipaddress import ip_network
from typing import Any

import pytest

from helios_services.config import ConfigError, load_config
from helios_services.webhooks.addresses import NotPublic, allowed, sockets

PUBLIC = ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e", "::ffff:93.184.215.14")
PRIVATE = (
    *("127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::10.0.0.1", "::127.0.0.1"),
    *("64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "localhost", "", "/run/docker.sock"),
)


@pytest.mark.parametrize("host", PUBLIC)
def test_addresses_of_the_internet_are_called(host: str) -> None:
    assert allowed(host, ())


@pytest.mark.parametrize("host", PRIVATE)
def test_no_other_address_is_called(host: str) -> None:
    assert not allowed(host, ())
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        info: Any = (family, socket.SOCK_STREAM, 0, "", (host, 443))
        with pytest.raises(NotPublic):
            sockets(())(info)


def test_networks_that_the_operator_names_are_called_too() -> None:
    networks = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
    for host in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::7"):
        assert allowed(host, networks)
    for host in ("10.2.0.1", "fd00:2::7", "127.0.0.1", "169.254.169.254"):
        assert not allowed(host, networks)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "internal", "10.0.0.0/33"])
def test_a_network_that_is_none_is_refused_at_start(network: str) -> None:
    with pytest.raises(ConfigError, match="internal_networks"):
        load_config(environ={"HELIOS_WEBHOOKS__INTERNAL_NETWORKS": f'["{network}"]'})
