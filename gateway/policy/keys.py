"""Virtual keys: how a secret is made, recognised and checked, and what its key allows. Pure.

Rules
1. A secret is `tg-<id>-<256 random bits>`. The id is public and finds the key; what decides is the keyed digest of the
   whole secret, compared in constant time. Whatever is presented, the same work is done and the same is said.
2. That a key is expired or disabled is said only to who presents its secret.
3. Rights are patterns, and what none of them means is refused. What the gateway does not look into (batches, unknown
   paths, frames of a WebSocket) is closed to keys whose models or tools are limited.
4. A key made under another stays within it: its rights are a subset, and it ends with its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from hmac import compare_digest

from msgspec import structs

from gateway.call import Route
from gateway.config.patterns import any_matches, covers
from gateway.errors import Forbidden, Unauthorized
from gateway.key import UNREAD, Key, KeyBudget

SCHEME = b"tg-"
ID_CHARS, SECRET_CHARS = 8, 43  # 62**43 > 2**256
ID_BYTES, SECRET_BYTES = 5, 32
LONGEST = 128  # of what is hashed; a secret has 55
DIGEST_BYTES = 32
PERSON = b"tollgate key"

UNKNOWN = (
    "a valid key of this gateway is needed, as `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or `api-key`"
)
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no letters that look alike
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HEADERS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")
_QUERY = b"key="
_NOBODY = Key(id="", digest=bytes(DIGEST_BYTES))
_NOBODIES = (_NOBODY, _NOBODY)

_READS = ("GET", "HEAD", "OPTIONS")
_BY_TEMPLATE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "/v1/models": (_READS, "models"),
    "/v1beta/models": (_READS, "models"),
    "/api/tags": (_READS, "models"),
    "/api/show": (("POST",), "models"),
    "/v1/responses/{id}": (_READS, "fetch_response"),
    "/v1/responses/{id}/input_items": (_READS, "fetch_response"),
    "/v1/responses/{id}/cancel": (("POST",), "fetch_response"),
    "/v1/responses/input_tokens": (("POST",), "count_tokens"),
    "/v1/messages/count_tokens": (("POST",), "count_tokens"),
    "/v1beta/models/{model}:countTokens": (("POST",), "count_tokens"),
    "/model/{modelId}/count-tokens": (("POST",), "count_tokens"),
    "/v1/messages/batches": ((*_READS, "POST", "DELETE"), "batches"),
    "/mcp/{server}": ((*_READS, "POST", "DELETE"), "execute_tool"),
}
"""Route template -> (methods, permission) for routes without an operation. What stands nowhere is `other`."""


# -- secrets --------------------------------------------------------------------------------------------------------


def new_id(entropy: bytes) -> str:
    """A public id of ID_BYTES random bytes. The store sees to it that it is new."""
    return _digits(entropy[:ID_BYTES], _ID_ALPHABET, ID_CHARS)


def new_secret(id: str, entropy: bytes) -> str:
    """The secret of a key. `entropy`: SECRET_BYTES from the system's generator."""
    if len(entropy) < SECRET_BYTES:
        raise ValueError(f"a secret is made of {SECRET_BYTES} random bytes")
    return f"tg-{id}-{_digits(entropy[:SECRET_BYTES], _ALPHABET, SECRET_CHARS)}"


def digest_of(secret: bytes, pepper: bytes) -> bytes:
    """Keyed BLAKE2b (RFC 7693) of a secret: without the pepper, the store of digests is of no use to a thief."""
    return blake2b(secret[:LONGEST], key=pepper, digest_size=DIGEST_BYTES, person=PERSON).digest()


def presented(names: Mapping[bytes, bytes], path: bytes) -> bytes:
    """The key that a call brings, b"" where it brings none. Of several, the first that looks like one of ours."""
    first = b""
    for name in _HEADERS:
        value = names.get(name)
        if value is None:
            continue
        if name == b"authorization":
            value = _bearer(value)
        if value.startswith(SCHEME):
            return value
        first = first or value
    if path.find(_QUERY) >= 0:
        for pair in path.partition(b"?")[2].split(b"&"):
            if pair.startswith(_QUERY):
                return pair[len(_QUERY) :]
    return first


def _bearer(value: bytes) -> bytes:
    scheme, space, token = value.partition(b" ")
    if not space:
        return value  # some clients leave the scheme out
    return token.strip() if scheme.lower() == b"bearer" else b""


def _digits(entropy: bytes, alphabet: str, length: int) -> str:
    number, base = int.from_bytes(entropy), len(alphabet)
    found = []
    for _ in range(length):
        number, digit = divmod(number, base)
        found.append(alphabet[digit])
    return "".join(found)


class Ring:
    """All keys, in memory: the reading half of ports.Keys. `required`: calls without a key are refused."""

    def __init__(self, pepper: bytes, *, required: bool = False) -> None:
        self.required = required
        self._pepper = pepper
        self._keys: dict[bytes, tuple[Key, Key]] = {}  # id -> (as it is, as it was before it was rotated)

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, keys: Iterable[Key]) -> None:
        """Hold these keys in place of all before."""
        held = {key.id: key for key in keys}
        self._keys = {id.encode(): _entry(within_parents(key, held)) for id, key in held.items()}
        self.required = self.required or bool(held)

    def find(self, presented: bytes) -> Key | None:
        """The key of this secret, which may be expired or disabled; see `usable`. The same work for every answer."""
        now, before = self._keys.get(presented[3 : 3 + ID_CHARS], _NOBODIES)
        made = blake2b(presented[:LONGEST], key=self._pepper, digest_size=DIGEST_BYTES, person=PERSON).digest()
        is_now, was = compare_digest(made, now.digest), compare_digest(made, before.digest)
        if is_now:
            return now
        return before if was else None


def _entry(key: Key) -> tuple[Key, Key]:
    if not key.old_digest:
        return (key, _NOBODY)
    ends = min(key.old_until, key.expires_at or key.old_until)
    return (key, structs.replace(key, digest=key.old_digest, expires_at=ends))


def within_parents(key: Key, held: Mapping[str, Key]) -> Key:
    """The key as it stands under those it was made under: it ends when one of them does, and spends for them, too."""
    above, seen = held.get(key.parent), {key.id}
    while above is not None and above.id not in seen:
        seen.add(above.id)
        key = structs.replace(key, above=(*key.above, above))
        ends = [at for at in (key.expires_at, above.expires_at) if at]
        stops = [at for at in (key.disabled_at, above.disabled_at) if at]
        key = structs.replace(key, expires_at=min(ends, default=0), disabled_at=min(stops, default=0))
        above = held.get(above.parent)
    return key


def usable(key: Key | None, now: int) -> Key:
    """Raises Unauthorized: in the same words for everything that is no secret of ours."""
    if key is None:
        raise Unauthorized(UNKNOWN)
    if key.disabled_at:
        raise Unauthorized(f"the key {key.prefix} is disabled", code="key_disabled")
    if key.expires_at and key.expires_at <= now:
        raise Unauthorized(f"the key {key.prefix} has expired", code="key_expired")
    return key


# -- rights ---------------------------------------------------------------------------------------------------------


def permission(route: Route, method: str) -> str:
    """The name under which a key is allowed what this route does."""
    if route.operation:
        return route.operation
    methods, name = _BY_TEMPLATE.get(route.template, ((), ""))
    return name if method in methods else "other"


def may_do(key: Key, permission: str, *, websocket: bool = False) -> None:
    """Raises Forbidden."""
    if not any_matches(key.operations, permission) or (permission in UNREAD and permission not in key.operations):
        raise Forbidden(f"the key {key.prefix} does not allow: {permission}", code="operation_not_allowed")
    if (permission in UNREAD or websocket) and ("*" not in key.models or "*" not in key.tools):
        what = "WebSockets" if websocket else permission
        raise Forbidden(
            f"the key {key.prefix} is limited in models or tools, which cannot be seen in: {what}",
            code="operation_not_allowed",
        )


def uses(key: Key, upstream: str) -> bool:
    return any_matches(key.upstreams, upstream)


def may_use(key: Key, upstream: str) -> None:
    """Raises Forbidden."""
    if not uses(key, upstream):
        raise Forbidden(f"the key {key.prefix} does not allow the upstream {upstream}", code="upstream_not_allowed")


def may_ask(key: Key, models: Sequence[str], *, needed: bool) -> None:
    """`models`: names of the one model: as it was asked for, as it is sent. One of them must be allowed; `needed`:
    there must be one. Raises Forbidden."""
    if "*" in key.models:
        return
    named = [model for model in models if model]
    if not named:
        if needed:
            raise Forbidden(
                f"the key {key.prefix} is limited to some models, and the call names none",
                code="model_not_allowed",
                param="model",
            )
        return
    for model in named:
        if any_matches(key.models, model):
            return
    raise Forbidden(
        f"the key {key.prefix} does not allow the model {named[0][:200]}", code="model_not_allowed", param="model"
    )


def may_offer(key: Key, tools: Iterable[str]) -> None:
    """`tools`: the names that a request declares, those the provider runs included. Raises Forbidden."""
    for tool in tools:
        if not any_matches(key.tools, tool):
            raise Forbidden(
                f"the key {key.prefix} does not allow the tool {tool[:200]}", code="tool_not_allowed", param="tools"
            )


def exceeds(parent: Key, child: Key) -> list[str]:
    """The fields in which `child` would be allowed more than `parent`; none where it stays within."""
    found = [
        name for name in ("models", "upstreams", "tools") if not _within(getattr(parent, name), getattr(child, name))
    ]
    unread = UNREAD & set(child.operations) - set(parent.operations)
    if unread or not _within(parent.operations, child.operations):
        found.append("operations")
    if parent.expires_at and not 0 < child.expires_at <= parent.expires_at:
        found.append("expires_at")
    if child.team != parent.team:
        found.append("team")
    found += [
        name for name in ("rpm", "tpm", "concurrency", "burst") if _above(getattr(parent, name), getattr(child, name))
    ]
    if any(not _kept(budget, child.budgets) for budget in parent.budgets):
        found.append("budgets")
    if child.may_limit_runs and not parent.may_limit_runs:
        found.append("may_limit_runs")
    return found


def _within(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return all(any(covers(pattern, name) for pattern in wide) for name in narrow)


def _above(limit: int | None, other: int | None) -> bool:
    return limit is not None and (other is None or other > limit)


def _kept(budget: KeyBudget, among: Iterable[KeyBudget]) -> bool:
    """Does one of the budgets hold at least as tightly as this one?"""
    return any(
        (other.per, other.rolling) == (budget.per, budget.rolling)
        and not _above(budget.usd, other.usd)
        and not _above(budget.tokens, other.tokens)
        for other in among
    )
