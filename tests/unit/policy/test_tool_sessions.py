"""Sessions of MCP servers are of the key under which their server named them."""

from __future__ import annotations

from gateway.call import Asked, Call, Route, Trace, Who
from gateway.errors import GatewayError
from gateway.key import Key
from gateway.policy.tool_sessions import check_session, note_session
from gateway.stores.local_table import LocalTable
from gateway.testing.doubles import ask

ID = b"3F2a-session"


class Server:
    """An MCP server behind the gate, with which several keys talk."""

    def __init__(self) -> None:
        self.links = LocalTable(64)

    def call(self, key: str, *stated: bytes, named: bytes = b"", upstream: str = "mcp/files") -> str:
        """The code of the error with which a call is refused, if it is."""
        headers = [(b"Mcp-Session-Id", value) for value in stated]
        request = ask("/mcp/files", b"{}", *headers)
        route = Route("/mcp/{server}", "mcp", "", upstream, b"/mcp")
        call = Call("id", request, route, Asked(), Who(), Trace("t", "s"), 0, 0)
        call.key = Key(id=key) if key else None
        try:
            check_session(call, self.links)
        except GatewayError as fault:
            return fault.code
        call.stated = {b"mcp-session-id": named} if named else {}
        note_session(call, self.links)
        return ""


def test_a_session_is_of_the_key_it_was_named_to() -> None:
    server = Server()
    assert server.call("a", named=ID) == ""
    assert server.call("a", ID) == ""
    assert server.call("b", ID) == "session_not_found"
    assert server.call("b", ID.lower() + b" ") == "session_not_found", "some servers read ids without regard to case"
    assert server.call("b", b"another", named=b"another") == ""
    assert server.call("a", b"another") == "session_not_found"


def test_another_server_may_give_the_same_name() -> None:
    server = Server()
    server.call("a", named=ID)
    assert server.call("b", ID, upstream="mcp/other") == ""
    assert server.call("b", ID, upstream="tools/search") == "", "to an HTTP tool it is a header like any"


def test_an_id_that_everybody_is_given_binds_nobody() -> None:
    server = Server()
    server.call("a", named=b"static")
    server.call("b", named=b"static")
    assert [server.call(key, b"static", named=b"static") for key in "abc"] == ["", "", ""]


def test_what_was_forgotten_is_of_the_key_that_the_server_names_it_to_next() -> None:
    server = Server()
    server.call("a", named=ID)
    server.links.close()
    assert server.call("b", ID) == "", "a server that names no session in its answers"
    assert server.call("a", ID, named=ID) == ""
    assert server.call("b", ID) == "session_not_found"


def test_without_keys_an_id_is_all_there_is() -> None:
    server = Server()
    server.call("", named=ID)
    assert server.call("", ID) == ""
    assert server.call("a", ID) == ""


def test_two_sessions_in_one_request_are_refused() -> None:
    server = Server()
    server.call("a", named=ID)
    assert server.call("b", ID, b"own") == server.call("b", b"own", ID) == "header_mismatch"
