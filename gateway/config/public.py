"""Which addresses a tool may be reached at: public ones, unless the operator allows more. No name is resolved here.

Rules
1. An address that carries another (IPv4-mapped, -compatible, NAT64, 6to4, ISATAP) counts as that one, too.
2. `allow_private` admits loopback, private and shared addresses. Link-local ones and those of cloud metadata only
   where the configured URL itself names the address: no answer of a resolver leads there.
3. What is no address of one host (unspecified, multicast, broadcast, reserved, tunnels to anywhere) is never used.
4. Of a name every address must be allowed: one that is not is a sign that somebody else answers for it.

Sources: the IANA special-purpose registries (RFC 6890), RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214
(ISATAP); the metadata addresses of AWS, Azure, Google, Alibaba, Oracle.
"""

from __future__ import annotations

import ipaddress
import re

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def _nets(*texts: str) -> tuple[Net, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


NEVER = _nets(
    *("0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "ff00::/8", "64:ff9b:1::/48", "2001::/23", "100::/64"),
)
LOCAL = _nets(
    *("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
    *("fe80::/10", "fec0::/10", "fd00:ec2::254/128", "fd20:ce::254/128"),
)
"""Link-local, and where clouds keep the credentials of a machine."""
PRIVATE = _nets(
    *("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15"),
    *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "::1/128", "fc00::/7", "2001:db8::/32", "3fff::/20"),
)
_GLOBAL_6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_6TO4 = ipaddress.ip_network("2002::/16")
_ISATAP = (0x00005EFE, 0x02005EFE)  # the upper half of an interface id
_LAST_IS_NUMBER = re.compile(r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?\Z")


def refused(address: str, *, private: bool = False, stated: str = "") -> str:
    """Why no tool may be reached at this address, or "" where one may. `private`: the operator allows private ones;
    `stated`: the host of the configured URL."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "not an IP address"
    inner = carried(found)
    for ip in (found, inner) if inner is not None else (found,):
        reason = _refused(ip, private=private, stated=stated, tunnelled=inner is not None)
        if reason:
            return reason
    return ""


def _refused(ip: Ip, *, private: bool, stated: str, tunnelled: bool) -> str:
    if _within(ip, LOCAL):
        return "" if private and stated == str(ip) else "a link-local address, or one of cloud metadata"
    if _within(ip, NEVER):
        return "not the address of a host"
    if _within(ip, PRIVATE):
        return "" if private else "a private or loopback address"
    if ip.version == 6 and not tunnelled and ip not in _GLOBAL_6:
        return "not a global address"
    return ""


def _within(ip: Ip, nets: tuple[Net, ...]) -> bool:
    return any(ip.version == net.version and ip in net for net in nets)


def carried(ip: Ip) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if not isinstance(ip, ipaddress.IPv6Address):
        return None
    number = int(ip)
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64 or (ip in _COMPATIBLE and number > 1) or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if ip in _6TO4:
        return ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF)
    return None


def host_fault(host: str, *, private: bool = False) -> str:
    """Why a URL with this host (of `parse_url`) cannot be that of a tool, as far as its text tells; else ""."""
    if "%" in host:
        return "an address must have no zone"
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        literal = None
    if literal is not None:
        return refused(host, private=private, stated=str(literal))
    if _LAST_IS_NUMBER.search(host.rpartition(".")[2] or host.rstrip(".").rpartition(".")[2]):
        return "looks like an IP address but is not written as one"
    name = host.lower().rstrip(".")
    if (name == "localhost" or name.endswith(".localhost")) and not private:
        return "a private or loopback address"
    return ""
