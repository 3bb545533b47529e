"""Where tools may not be reached: every form of an address that leads inside (RELIABILITY G7, CVE-2024-6587)."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.public import LOCAL, NEVER, PRIVATE, host_fault, refused
from gateway.config.schema import Tool
from gateway.config.semantics_tools import faults

HOSTILE_ADDRESSES = [
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("100.64.0.1", "100.127.255.255", "169.254.169.254", "169.254.170.2", "169.254.0.1", "168.63.129.16"),
    *("100.100.100.200", "192.0.0.192", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254"),
    *("fdff::1", "ff02::1", "2001:db8::1", "3fff::1", "100::1", "4000::1", "5f00::1", "8000::1"),
    *("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:0"),
    *("::127.0.0.1", "::10.0.0.1", "::a9fe:a9fe"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.1.1.1", "64:ff9b:1::a00:1"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:c0a8:101::", "2002:a00:1::"),
    *("2001:0:7f00:1::1", "2001::1"),
    *("2a00::5efe:7f00:1", "2a00::200:5efe:a9fe:a9fe", "fe80::5efe:8.8.8.8"),
    *("", "localhost", "1.2.3", "1.2.3.4.5", "0x7f000001", "2130706433", "[::1]"),
]


@pytest.mark.parametrize("address", HOSTILE_ADDRESSES)
def test_addresses_that_no_tool_is_reached_at(address: str) -> None:
    assert refused(address)


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.255.255", "100.128.0.1", "169.253.1.1"),
        *("198.17.255.255", "198.20.0.1", "223.255.255.255", "168.63.129.17", "2606:4700:4700::1111", "2a00:1450::1"),
        *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
    ],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert refused(address) == ""


HOSTILE_URLS = [
    *("http://localhost/", "http://LOCALHOST:80/", "http://localhost./", "http://a.localhost/"),
    *("http://127.0.0.1/", "http://127.0.0.1:9200/", "http://127.0.0.2/", "http://0.0.0.0/", "http://10.1.2.3/"),
    *("http://127.1/", "http://127.0.1/", "http://2130706433/", "http://017700000001/", "http://0177.0.0.1/"),
    *("http://0x7f000001/", "http://0x7f.0.0.1/", "http://0x7f.1/", "http://0X7F.0.0.0x1/", "http://1.2.3.0x4/"),
    *("http://127.0.0.1./", "http://0x7f.1./", "http://a.1/", "http://a.0x/", "http://example.12/"),
    *("http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://168.63.129.16/"),
    *("http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[fe80::1]/"),
    *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/"),
    *("http://[::127.0.0.1]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::1", "http://::1/", "http://[::1]x/"),
    *("http://user@example.com/", "http://example.com@127.0.0.1/", "http://example.com:80@127.0.0.1/"),
    *("http://example.com#@127.0.0.1/", "http://127.0.0.1#.example.com/", "http://127.0.0.1\\.example.com/"),
    *("http://example.com\\@127.0.0.1/", "http://①②⑦.⓪.⓪.①/", "http://１２７.0.0.1/", "http://127。0。0。1/"),
    *("http://exa mple.com/", "http://example.com\t/", "http://example.com\r\nHost: a/", "http:// 127.0.0.1/"),
    *("http:///127.0.0.1", "http:127.0.0.1", "//127.0.0.1/", "127.0.0.1", "", "http://", "http://:80/"),
    *("file:///etc/passwd", "gopher://127.0.0.1:6379/_INFO", "dict://127.0.0.1:11211/stat", "ftp://example.com/"),
    *("unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/", "ldap://127.0.0.1/", "data:,x"),
    *("javascript:alert(1)", "jar:http://127.0.0.1!/", "netdoc:///etc/passwd", "https://127.0.0.1:443/"),
    *("http://%31%32%37.0.0.1/", "http://127%2e0%2e0%2e1/", "http://example.com:0/", "http://example.com:99999/"),
    *("http://example.com/../x", "http://example.com/%2e%2e/x", "http://example.com/?u=http://127.0.0.1"),
    *("http://[::ffff:169.254.169.254]/", "http://[fec0::1]/", "http://255.255.255.255/", "http://224.0.0.1/"),
]


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_urls_that_no_tool_may_have(url: str) -> None:
    assert any(fault.path[-1] == "url" for fault in faults(("tools", "t"), Tool(url=url)))


def test_the_tables_are_long_enough() -> None:
    assert len(set(HOSTILE_URLS)) >= 60
    assert len(set(HOSTILE_ADDRESSES)) >= 60


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fd12::1", "192.168.0.7", "::ffff:10.0.0.1"])
def test_private_addresses_where_the_operator_says_so(address: str) -> None:
    assert refused(address, private=True) == ""
    assert host_fault(address, private=True) == ""
    assert host_fault("localhost", private=True) == ""


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "fe80::1", "::ffff:169.254.1.1"]
)
def test_metadata_is_never_reached_by_a_name(address: str) -> None:
    assert refused(address, private=True)
    assert refused(address, private=True, stated="tool.internal")


def test_metadata_is_reached_only_by_its_own_address_and_permission() -> None:
    assert refused("169.254.169.254", private=True, stated="169.254.169.254") == ""
    assert refused("169.254.169.254", private=False, stated="169.254.169.254")
    assert refused("169.254.169.253", private=True, stated="169.254.169.254")


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "2001::1"])
def test_what_is_no_host_is_never_reached(address: str) -> None:
    assert refused(address, private=True, stated=address)


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_never_allowed_more_than_itself(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    forms = (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80 | 1, number)
    if refused(str(inner)):
        assert all(refused(str(ipaddress.IPv6Address(form))) for form in forms)


@given(st.sampled_from((*NEVER, *LOCAL, *PRIVATE)), st.data())
def test_every_address_of_the_tables_is_refused(net: Any, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, net.num_addresses - 1))
    assert refused(str(net.network_address + offset))


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_refused(address: Any) -> None:
    if not address.is_global:
        assert refused(str(address))
