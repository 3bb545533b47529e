"""Sessions of MCP servers: one belongs to the key of this gateway under which its server first named it. Pure.

Rules
1. A server behind a key of the operator sees one caller. The id of a session is all that tells it whose calls, streams
   and results are whose: so what one key has opened no other key may use, listen to or end.
2. Only what a server itself names is somebody's. An id that servers give to everybody tells nothing apart, and binds
   nobody.
3. Whose a session is may be forgotten (the table is bounded): it is the key's again whose call its server names it to.
"""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import BadBody, UnknownSession
from gateway.policy.cache_key import digest
from gateway.ports import Links
from gateway.tool import MCP_PREFIX

HEADER = b"mcp-session-id"
SHARED = b""


def check_session(call: Call, links: Links) -> None:
    """Raises UnknownSession for one of another key, BadBody where the server might find another one than this does."""
    if call.key is None or not call.route.upstream.startswith(MCP_PREFIX):
        return
    stated = [value for name, value in call.request.headers if name.lower().replace(b"_", b"-") == HEADER]
    if not stated:
        return
    if len(stated) > 1:
        raise BadBody("the session is stated twice", code="header_mismatch")
    if links.get(_place(call, stated[0])) not in (None, SHARED, call.key.id.encode()):
        raise UnknownSession("the server has no such session for this key: begin a new one")


def note_session(call: Call, links: Links) -> None:
    """The server answered, and `call.stated` are the headers of that."""
    session = call.stated.get(HEADER)
    if session is None or call.key is None:
        return
    place, own = _place(call, session), call.key.id.encode()
    known = links.get(place)
    if known is None:
        links.put(place, own)
    elif known not in (own, SHARED):
        links.put(place, SHARED)  # that it was not asked for by its name was checked


def _place(call: Call, session: bytes) -> bytes:
    return b"session:" + digest((call.route.upstream.encode(), session.strip().lower()))
