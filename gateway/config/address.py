"""Addresses and URLs of the configuration."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*)?\.?\Z")


class Address(Struct, frozen=True):
    """Where to listen. Port 0 lets the system choose."""

    host: str  # without brackets
    port: int

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def wildcard(self) -> bool:
        return self.host in ("0.0.0.0", "::")  # noqa: S104 - recognised here, not bound

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def clashes(self, other: Address) -> bool:
        """Can the two not be bound at once?"""
        same_host = self.host == other.host or self.wildcard or other.wildcard
        return self.port == other.port != 0 and same_host


def parse_address(text: str) -> Address:
    """Read `host:port` or `[ipv6]:port`. Raises ValueError with the reason, which never quotes the text."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError('expected "host:port"')
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65_535:
        raise ValueError("the port must be a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ip(host, version=6):
            raise ValueError("not an IPv6 address in the brackets")
    elif ":" in host:
        raise ValueError('an IPv6 address needs brackets: "[::1]:8787"')
    elif not _is_host(host):
        raise ValueError("not a host name or an IP address")
    return Address(host, int(port))


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses, IPv4-mapped ones included; other names are not looked up."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def parse_url(text: str) -> SplitResult:
    """Read the base URL of an HTTP service. Raises ValueError with the reason, which never quotes the text."""
    if not text.isascii() or any(character <= " " or character in '\\<>"{}|^`' for character in text):
        raise ValueError("a URL holds printable ASCII without spaces only")
    try:
        url = urlsplit(text)
        port, host = url.port, url.hostname or ""
    except ValueError:
        raise ValueError("the host or port of the URL is malformed") from None
    if url.scheme not in ("http", "https"):
        raise ValueError("a URL begins with http:// or https://")
    if url.username is not None or url.password is not None:
        raise ValueError("a URL must hold no user name or password; use a key or a header")
    if not (_is_ip(host, version=6) if ":" in host else _is_host(host)):
        raise ValueError("the URL has no valid host")
    if not re.fullmatch(re.escape(f"[{host}]" if ":" in host else host) + "(:[0-9]{1,5})?", url.netloc.lower()):
        raise ValueError("the URL has no valid host")  # urlsplit overlooks what stands between "]" and ":"
    if port == 0:
        raise ValueError("the port of the URL must be from 1 to 65535")
    if "?" in text or "#" in text:
        raise ValueError("a base URL has no query and no fragment")
    if any(segment in (".", "..") for segment in url.path.lower().replace("%2e", ".").split("/")):
        raise ValueError("the path of the URL holds dot segments")
    return url


def passwords(url: str) -> list[str]:
    """The password in a URL, as it stands there and as it is meant; none where it has none or is no URL."""
    try:
        found = urlsplit(url).password
    except ValueError:
        return []
    return [found, unquote(found)] if found else []


def _is_host(host: str) -> bool:
    if re.fullmatch(r"[0-9.]+", host):
        return _is_ip(host, version=4)
    return _HOST.match(host) is not None


def _is_ip(host: str, *, version: int) -> bool:
    try:
        return ipaddress.ip_address(host).version == version
    except ValueError:
        return False
