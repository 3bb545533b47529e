"""What a raw path means, where other tests do not come by."""

import pytest

from gateway.call import Request
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.routes import Table
from gateway.errors import BadPath

TABLE = Table({"openai": "openai", "anthropic": "anthropic", "gemini": "gemini"})


def meaning(target, method=b"POST", hint=""):
    route = TABLE.resolve(method, target, hint)
    return route.upstream, route.dialect, route.operation, route.path


@pytest.mark.parametrize(
    ("target", "upstream", "dialect", "operation"),
    [
        (b"/v1/chat/completions/", "openai", "openai_chat", "chat"),
        (b"/v1/responses/?a=b/", "openai", "openai_responses", "chat"),
        (b"/run/r/v1/messages/", "anthropic", "anthropic", "chat"),
        (b"/openai/deployments/x/chat/completions/?api-version=1", "openai", "openai_chat", "chat"),
    ],
)
def test_a_slash_at_the_end_hides_no_call(target, upstream, dialect, operation):
    sent = target.removeprefix(b"/run/r").removeprefix(b"/openai")
    assert meaning(target) == (upstream, dialect, operation, sent)  # and passes as it is


def test_a_slash_at_the_end_decides_no_family():
    assert meaning(b"/v1/chat/completions/", hint="anthropic")[0] == "openai"


@pytest.mark.parametrize("upstream", ["anthropic", "gemini"])
@pytest.mark.parametrize(
    ("path", "dialect", "operation"),
    [
        (b"/v1beta/openai/chat/completions", "openai_chat", "chat"),
        (b"/v1/chat/completions", "openai_chat", "chat"),
        (b"/v1beta/openai/embeddings", "openai_embeddings", "embeddings"),
    ],
)
def test_what_a_provider_offers_in_the_api_of_openai_is_metered_as_that(upstream, path, dialect, operation):
    assert meaning(b"/" + upstream.encode() + path) == (upstream, dialect, operation, path)


def test_the_compatible_api_of_google_needs_no_name():
    assert meaning(b"/v1beta/openai/chat/completions")[:2] == ("gemini", "openai_chat")


VERTEX = b"/anthropic/v1/projects/p/locations/us/publishers/anthropic/models/"


@pytest.mark.parametrize("method", [b"rawPredict", b"streamRawPredict"])
def test_claude_at_vertex_is_named_in_the_path(method):
    route = TABLE.resolve(b"POST", VERTEX + b"claude-sonnet-4@20250514:" + method, "")
    assert (route.dialect, route.operation) == ("anthropic", "chat")
    request = Request(b"POST", route.path, [], b'{"anthropic_version":"vertex-2023-10-16","messages":[]}', "")
    asked = Anthropic().read(route, request)
    assert asked.model == "claude-sonnet-4@20250514"
    renamed, edits = Anthropic().rename(route, asked, "claude-opus-4")
    assert (renamed.path.rpartition(b"/")[2], edits) == (b"claude-opus-4:" + method, ())


def test_tokens_counted_at_vertex_are_none_that_are_used():
    assert meaning(VERTEX + b"count-tokens:rawPredict")[1:3] == ("anthropic", "")


@pytest.mark.parametrize("piece", [b"%61", b"%5A", b"%39", b"%2d", b"%5f", b"%2E", b"%2f", b"%5C", b"/..;/x", b"/.;"])
def test_what_another_hop_may_read_differently_is_refused(piece):
    with pytest.raises(BadPath):
        TABLE.resolve(b"POST", b"/openai/v1/files" + piece, "")


@pytest.mark.parametrize("piece", [b"%C3%A9", b"%20", b"%3A", b"%7E", b"%25", b"%40", b"%5B", b"%5D", b"%60", b"/..."])
def test_what_must_be_encoded_or_means_one_thing_passes(piece):
    assert meaning(b"/openai/v1/files/a" + piece)[3] == b"/v1/files/a" + piece
