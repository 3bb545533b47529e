"""When a client gives up, as its headers say."""

from __future__ import annotations

import pytest

from gateway.call import Request
from gateway.policy.deadline import seconds_left

NOW = 1_790_000_000_000_000_000  # ns


def left(**headers: str) -> float | None:
    names = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    request = Request(b"POST", b"/", list(names.items()), b"", names=names)
    found = seconds_left(request, NOW)
    assert seconds_left(request, NOW) == found
    return found


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x_stainless_timeout": "600"}, 600),
        ({"x_stainless_timeout": " 2.5 "}, 2.5),
        ({"x_stainless_timeout": "NaN"}, None),
        ({"x_stainless_timeout": "-1"}, None),
        ({"x_stainless_timeout": "1" * 30}, None),
        ({"x_stainless_timeout": "600", "x_stainless_read_timeout": "30"}, 30),
        ({"x_server_timeout": "7"}, 7),
        ({"x_envoy_expected_rq_timeout_ms": "1500"}, 1.5),
        ({"x_request_deadline": "1790000030"}, 30),
        ({"x_request_deadline": "1790000030250"}, 30.25),
        ({"x_request_deadline": "1789999990"}, -10),
        ({"x_request_deadline": "soon"}, None),
        ({"x_request_deadline": "1790000030", "x_stainless_timeout": "20"}, 20),
        ({"x_request_deadline": "1790000030", "x_stainless_timeout": "40"}, 30),
    ],
)
def test_what_headers_say(headers: dict[str, str], seconds: float | None) -> None:
    assert left(**headers) == (pytest.approx(seconds) if seconds is not None else None)
