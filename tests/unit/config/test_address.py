"""Addresses to listen on and URLs to call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.address import Address, is_loopback, parse_address, parse_url, passwords

BAD_ADDRESSES = """
    :80 80 host host: host:65536 host:-1 host:٣ ::1:80 [::1:80 [1.2.3.4]:80 host/path:80 1.2.3:80 256.1.1.1:80
    http://h:80 h:000080 -h:80 [::1%]:80
"""
BAD_URLS = """
    api.openai.com ftp://h //h http:// http://:80 http://user@h http://u:sk-canary@h http://h:0 http://h?key=sk-canary
    http://h#f http://h:99999 http://h:x http://[::1 http://[1.2.3.4] http://h/a/../b http://h/%2e%2E/b http://1.2.3
    http://hé http://h\\x http://h? https://$HOST http://h..h http://[::1]x:80 http://[::1]: http://a%00b http://h:
"""


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8787", "127.0.0.1", 8787),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        ("[2001:db8::1]:80", "2001:db8::1", 80),
        ("gate_1.internal.:80", "gate_1.internal.", 80),
    ],
)
def test_addresses(text, host, port):
    address = parse_address(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "host:8 0", *BAD_ADDRESSES.split()])
def test_bad_addresses(text):
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


@given(st.text(max_size=30))
def test_addresses_never_raise_anything_else(text):
    try:
        assert str(parse_address(text)).count(":") >= 1
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Address("127.0.0.1", 80), Address("127.0.0.1", 80), True),
        (Address("0.0.0.0", 80), Address("127.0.0.1", 80), True),
        (Address("127.0.0.1", 80), Address("::", 80), True),
        (Address("127.0.0.1", 80), Address("127.0.0.2", 80), False),
        (Address("127.0.0.1", 80), Address("127.0.0.1", 81), False),
        (Address("127.0.0.1", 0), Address("127.0.0.1", 0), False),
    ],
)
def test_which_addresses_clash(one, other, expected):
    assert one.clashes(other) is expected
    assert other.clashes(one) is expected


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com",
        "https://api.openai.com/v1/",
        "http://127.0.0.1:9000",
        "http://[::1]:9000/x",
        "HTTPS://h",
    ],
)
def test_urls(url):
    assert parse_url(url).hostname


@pytest.mark.parametrize("url", ["", "http://h /", "http://h\n", f"http://{'h' * 300}", *BAD_URLS.split()])
def test_bad_urls(url):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_url(url)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(max_size=40).map(lambda tail: "http://" + tail))
def test_urls_never_raise_anything_else(url):
    try:
        assert parse_url(url).hostname
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://h", []),
        ("redis://:pass@h:1/0", ["pass", "pass"]),
        ("redis://user:p%40ss@h", ["p%40ss", "p@ss"]),
        ("redis://user@h", []),
        ("redis://[", []),
        ("", []),
    ],
)
def test_the_password_in_a_url_is_found_as_written_and_as_meant(url, found):
    assert passwords(url) == found
