"""Secrets and rights of virtual keys."""

from __future__ import annotations

import ast
import inspect
import os
import random
import re
import statistics
import time

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.call import Route
from gateway.dialects.routes import FAMILIES, Table
from gateway.dialects.tool_paths import MCP_TEMPLATE
from gateway.errors import Forbidden, Unauthorized
from gateway.key import OPERATIONS, UNREAD, Key, KeyBudget
from gateway.policy import keys
from gateway.policy.keys import (
    Ring,
    digest_of,
    exceeds,
    may_ask,
    may_do,
    may_offer,
    may_use,
    new_id,
    new_secret,
    permission,
    presented,
    usable,
    within_parents,
)

PEPPER = bytes(range(32))
OTHER = bytes(32)


def made(id: str = "0123abcd", **fields: object) -> tuple[Key, bytes]:
    secret = new_secret(id, random.Random(id).randbytes(32)).encode()
    return Key(id=id, name=id, digest=digest_of(secret, PEPPER), **fields), secret  # type: ignore[arg-type]


def ring(*held: Key) -> Ring:
    found = Ring(PEPPER)
    found.take(held)
    return found


# -- secrets --------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=5, max_size=5), st.binary(min_size=32, max_size=32))
def test_a_secret_is_its_id_and_all_of_its_entropy(id_bytes: bytes, entropy: bytes) -> None:
    id = new_id(id_bytes)
    secret = new_secret(id, entropy)
    assert re.fullmatch(r"tg-[0-9a-z]{8}-[0-9A-Za-z]{43}", secret)
    assert secret[3:11] == id
    number = 0
    for digit in reversed(secret[12:]):  # the digits stand in ascending order
        number = number * 62 + keys._ALPHABET.index(digit)
    assert number.to_bytes(32) == entropy, "nothing of the entropy is lost"


def test_too_little_entropy_makes_no_secret() -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        new_secret("0123abcd", b"short")


def test_a_digest_needs_secret_and_pepper() -> None:
    _, secret = made()
    assert digest_of(secret, PEPPER) != digest_of(secret, OTHER)
    assert digest_of(secret, PEPPER) != digest_of(secret + b"x", PEPPER)
    assert len(digest_of(secret, PEPPER)) == 32


@pytest.mark.parametrize(
    ("names", "path", "found"),
    [
        ({b"authorization": b"Bearer tg-a"}, b"/", b"tg-a"),
        ({b"authorization": b"bearer   tg-a "}, b"/", b"tg-a"),
        ({b"authorization": b"tg-a"}, b"/", b"tg-a"),
        ({b"authorization": b"Basic dXNlcjpwYXNz"}, b"/", b""),
        ({b"x-api-key": b"tg-a"}, b"/", b"tg-a"),
        ({b"x-goog-api-key": b"tg-a"}, b"/", b"tg-a"),
        ({b"api-key": b"tg-a"}, b"/", b"tg-a"),
        ({}, b"/v1beta/x?alt=sse&key=tg-a&b=c", b"tg-a"),
        ({}, b"/v1/key=tg-a", b""),
        ({b"authorization": b"Bearer sk-1", b"x-api-key": b"tg-a"}, b"/", b"tg-a"),
        ({b"authorization": b"Bearer sk-1", b"x-api-key": b"sk-2"}, b"/", b"sk-1"),
        ({b"x-api-key": b"dummy"}, b"/?key=tg-a", b"tg-a"),
        ({b"x-other": b"tg-a"}, b"/", b""),
        ({}, b"/", b""),
    ],
)
def test_where_a_key_is_looked_for(names: dict[bytes, bytes], path: bytes, found: bytes) -> None:
    assert presented(names, path) == found


def test_only_the_secret_finds_its_key() -> None:
    key, secret = made()
    found = ring(key)
    assert found.find(secret) is not None
    assert found.required
    for wrong in (
        b"",
        b"tg-",
        b"tg-0123abcd",
        b"tg-0123abcd-",
        secret[:-1],
        secret + b"0",
        secret.swapcase(),
        secret.replace(b"tg", b"sk"),
        b"tg-zzzzzzzz-" + secret[12:],
        secret + b"x" * 200,
        b"\xff" * 65_536,
    ):
        assert found.find(wrong) is None, wrong[:60]
    assert Ring(PEPPER).find(secret) is None
    assert not Ring(PEPPER).required


def test_with_another_pepper_no_secret_is_known() -> None:
    key, secret = made()
    stolen = Ring(OTHER)
    stolen.take([key])
    assert stolen.find(secret) is None


@given(st.binary(max_size=200))
def test_no_bytes_find_a_key_by_chance(wrong: bytes) -> None:
    key, secret = made()
    assume(wrong != secret)
    assert ring(key).find(wrong) is None


def test_once_required_always_required() -> None:
    key, secret = made()
    found = ring(key)
    found.take([])
    assert found.required
    assert found.find(secret) is None
    assert Ring(PEPPER, required=True).required


def test_a_rotated_secret_is_good_for_its_overlap() -> None:
    old, before = made()
    new = digest_of(b"tg-0123abcd-new", PEPPER)
    found = ring(structs.replace(old, digest=new, old_digest=old.digest, old_until=50))
    now, was = found.find(b"tg-0123abcd-new"), found.find(before)
    assert usable(now, 10**18).id == usable(was, 49).id == old.id
    with pytest.raises(Unauthorized, match="has expired"):
        usable(was, 50)
    shorter = ring(structs.replace(old, digest=new, old_digest=old.digest, old_until=50, expires_at=20))
    with pytest.raises(Unauthorized):
        usable(shorter.find(before), 20)


def test_what_is_said_of_a_key_that_cannot_be_used() -> None:
    key, _ = made()
    assert usable(key, 5) is key
    faults = []
    for one, now in ((None, 0), (structs.replace(key, disabled_at=3), 5), (structs.replace(key, expires_at=5), 5)):
        with pytest.raises(Unauthorized) as caught:
            usable(one, now)
        faults.append(caught.value)
    assert [fault.code for fault in faults] == ["unauthorized", "key_disabled", "key_expired"]
    assert {fault.status for fault in faults} == {401}
    assert "0123abcd" not in faults[0].message


def test_a_key_ends_with_those_it_was_made_under() -> None:
    top, _ = made("aaaaaaaa", expires_at=100)
    middle, _ = made("bbbbbbbb", parent="aaaaaaaa")
    low, secret = made("cccccccc", parent="bbbbbbbb", expires_at=200)
    held = ring(top, middle, low)
    found = usable(held.find(secret), 99)
    assert [one.id for one in found.above] == ["bbbbbbbb", "aaaaaaaa"]
    with pytest.raises(Unauthorized):
        usable(held.find(secret), 100)
    held.take([top, structs.replace(middle, disabled_at=7), low])
    with pytest.raises(Unauthorized, match="disabled"):
        usable(held.find(secret), 1)


def test_keys_in_a_circle_are_no_endless_loop() -> None:
    one, _ = made("aaaaaaaa", parent="bbbbbbbb")
    two, _ = made("bbbbbbbb", parent="aaaaaaaa", disabled_at=1)
    assert within_parents(one, {one.id: one, two.id: two}).disabled_at == 1


def test_no_text_of_a_key_shows_its_digest() -> None:
    key, secret = made()
    assert repr(key) == "Key('0123abcd', '0123abcd')"
    assert key.prefix == "tg-0123abcd-"
    assert secret.startswith(key.prefix.encode())


# -- in constant time -----------------------------------------------------------------------------------------------


def test_the_look_up_never_compares_in_any_other_way() -> None:
    """Structure: no == and no branch stands between what is presented and `compare_digest` of whole digests."""
    tree = ast.parse(inspect.getsource(Ring.find).replace("    def find", "def find", 1))
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not compared
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert sum(call.startswith("compare_digest(") for call in calls) == 2
    branches = [ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp)]
    assert branches == ["is_now", "was"], "decisions only on what was compared"


def test_near_and_far_guesses_take_the_same_time() -> None:
    """Statistics: medians of interleaved batches. A byte-wise comparison of secrets, or a look-up that ends early for
    an unknown id, would show: it would save the hash, which is most of the work."""
    key, secret = made()
    held = ring(key)
    guesses = {
        "unknown id": b"tg-zzzzzzzz-" + secret[12:],
        "first byte": secret[:12] + b"0" * 43,
        "all but the last byte": secret[:-1] + (b"0" if secret[-1:] != b"0" else b"1"),
        "no key of ours": b"sk" + secret[2:],
    }
    times: dict[str, list[int]] = {name: [] for name in guesses}
    order = list(guesses)
    shuffle = random.Random(1).shuffle
    for _ in range(300):
        shuffle(order)
        for name in order:
            guess = guesses[name]
            began = time.perf_counter_ns()
            for _ in range(20):
                held.find(guess)
            times[name].append(time.perf_counter_ns() - began)
    fastest = {name: statistics.quantiles(taken, n=10)[1] for name, taken in times.items()}  # the noise is on top
    assert max(fastest.values()) < 1.25 * min(fastest.values()), fastest


# -- rights ---------------------------------------------------------------------------------------------------------


def route(template: str, operation: str = "") -> Route:
    return Route(template, "opaque", operation, "openai", b"/")


def test_every_route_and_method_has_a_declared_permission() -> None:
    """G6: a route that is added later is closed to keys until somebody says what it is."""
    known = OPERATIONS | UNREAD
    for table in FAMILIES.values():
        for line in table:
            for operation in {line.operation, line.fetch, ""}:
                for method in ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "BREW"):
                    assert permission(route(line.template, operation), method) in known, line.template
    templates = {line.template for table in FAMILIES.values() for line in table} | {MCP_TEMPLATE}
    assert set(keys._BY_TEMPLATE) <= templates, "permissions for routes that are gone"
    readable = {line.template for table in FAMILIES.values() for line in table if not (line.operation or line.fetch)}
    assert readable - set(keys._BY_TEMPLATE) == set(), "routes without tokens whose permission is not declared"


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v1/chat/completions", "chat"),
        ("POST", "/v1/messages", "chat"),
        ("POST", "/v1beta/models/m:generateContent", "generate_content"),
        ("GET", "/v1/responses/r1", "fetch_response"),
        ("DELETE", "/v1/responses/r1", "other"),
        ("GET", "/v1/responses/r1/input_items", "fetch_response"),
        ("GET", "/v1/models", "models"),
        ("DELETE", "/v1/models/ft:mine", "other"),
        ("POST", "/v1/messages/count_tokens", "count_tokens"),
        ("POST", "/v1/messages/batches", "batches"),
        ("POST", "/v1/files", "other"),
        ("POST", "/v1/fine_tuning/jobs", "other"),
    ],
)
def test_permissions(method: str, path: str, name: str) -> None:
    table = Table({"openai": "openai", "anthropic": "anthropic", "gemini": "gemini"})
    assert permission(table.resolve(method.encode(), path.encode(), ""), method) == name


def refusal(check: object, *args: object, **more: object) -> Forbidden:
    with pytest.raises(Forbidden) as caught:
        check(*args, **more)  # type: ignore[operator]
    return caught.value


def test_what_is_not_read_must_be_granted_by_name() -> None:
    key, _ = made()
    for what in OPERATIONS:
        may_do(key, what)
    for what in UNREAD:
        assert refusal(may_do, key, what).code == "operation_not_allowed"
        assert refusal(may_do, structs.replace(key, operations=("*",)), what)
        may_do(structs.replace(key, operations=("chat", what)), what)
    nothing = structs.replace(key, operations=())
    for what in OPERATIONS | UNREAD:
        assert refusal(may_do, nothing, what)


def test_what_is_not_read_is_closed_to_limited_keys() -> None:
    key, _ = made(operations=("chat", "other"), models=("gpt-*",))
    assert refusal(may_do, key, "other").code == "operation_not_allowed"
    assert "WebSockets" in refusal(may_do, key, "chat", websocket=True).message
    assert refusal(may_do, structs.replace(key, models=("*",), tools=("f",)), "chat", websocket=True)
    may_do(key, "chat")
    may_do(structs.replace(key, models=("*",)), "chat", websocket=True)


def test_models_upstreams_and_tools() -> None:
    key, _ = made(models=("gpt-*", "fast"), upstreams=("openai", "az*"), tools=("read_*",))
    may_ask(key, ("gpt-4o", ""), needed=True)
    may_ask(key, ("fast", "claude-x"), needed=True)  # the alias is allowed
    may_ask(key, ("slow", "gpt-4o"), needed=True)  # what it stands for is
    may_ask(key, ("", ""), needed=False)
    assert refusal(may_ask, key, ("claude-x", ""), needed=True).code == "model_not_allowed"
    assert refusal(may_ask, key, ("claude-x", ""), needed=False).param == "model"
    assert "names none" in refusal(may_ask, key, ("", ""), needed=True).message
    may_use(key, "azure")
    assert refusal(may_use, key, "anthropic").code == "upstream_not_allowed"
    may_offer(key, ("read_file", "read_"))
    fault = refusal(may_offer, key, ("read_file", "delete_all"))
    assert (fault.code, fault.param) == ("tool_not_allowed", "tools")
    assert "delete_all" in fault.message
    nothing = structs.replace(key, models=(), upstreams=(), tools=())
    assert refusal(may_ask, nothing, ("gpt-4o",), needed=True)
    assert refusal(may_use, nothing, "openai")
    assert refusal(may_offer, nothing, ("read_file",))
    may_offer(nothing, ())


# -- keys under keys (G5) -------------------------------------------------------------------------------------------

PATTERNS = st.lists(st.sampled_from(["*", "a", "b", "ab", "a*", "*b", "a*b", "ab*"]), max_size=3).map(tuple)
LIMIT = st.none() | st.integers(1, 3)
BUDGET = st.builds(KeyBudget, usd=LIMIT, tokens=LIMIT, per=st.sampled_from(["day", "month"]), rolling=st.booleans())
OPERATION = st.lists(st.sampled_from([*sorted(OPERATIONS | UNREAD), "*", "chat*"]), max_size=4).map(tuple)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "team": st.sampled_from(["", "t"]),
    "models": PATTERNS,
    "upstreams": PATTERNS,
    "tools": PATTERNS,
    "operations": OPERATION,
    "expires_at": st.sampled_from([0, 10, 20]),
    "rpm": LIMIT,
    "tpm": LIMIT,
    "concurrency": LIMIT,
    "budgets": st.lists(BUDGET, max_size=2).map(tuple),
    "may_limit_runs": st.booleans(),
}
KEYS = st.fixed_dictionaries(FIELDS).map(lambda fields: Key(id="k", **fields))  # type: ignore[arg-type]
NAMES = ["", "a", "b", "ab", "abb", "aab", "c"]


def allowed(key: Key, check: object, *args: object, **more: object) -> bool:
    try:
        check(key, *args, **more)  # type: ignore[operator]
    except Forbidden:
        return False
    return True


@st.composite
def families(draw: st.DrawFn) -> tuple[Key, Key]:
    """A key, and one that differs from it in a few fields: two of any kind are seldom parent and child."""
    parent = draw(KEYS)
    other = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3))
    return parent, structs.replace(parent, **{name: draw(FIELDS[name]) for name in other})


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # many pairs are none of parent and child
@given(families())
def test_what_a_child_may_its_parent_may(family: tuple[Key, Key]) -> None:
    parent, child = family
    assume(not exceeds(parent, child))
    for name in NAMES:
        for check, args, more in (
            (may_use, (name,), {}),
            (may_ask, ((name,),), {"needed": True}),
            (may_offer, ((name,),), {}),
        ):
            if allowed(child, check, *args, **more):
                assert allowed(parent, check, *args, **more), (check, name)
    for what in OPERATIONS | UNREAD:
        for websocket in (False, True):
            if allowed(child, may_do, what, websocket=websocket):
                assert allowed(parent, may_do, what, websocket=websocket)
    assert child.team == parent.team
    assert not parent.expires_at or 0 < child.expires_at <= parent.expires_at
    for name in ("rpm", "tpm", "concurrency"):
        limit = getattr(parent, name)
        assert limit is None or getattr(child, name) <= limit


@given(KEYS)
def test_a_key_stays_within_itself(key: Key) -> None:
    assert exceeds(key, key) == []


def test_each_excess_is_named() -> None:
    parent = Key(
        id="p",
        team="t",
        models=("gpt-*",),
        upstreams=("a",),
        tools=("f",),
        operations=("chat",),
        expires_at=10,
        rpm=5,
        budgets=(KeyBudget(usd=5, per="day"),),
        may_limit_runs=False,
    )
    assert exceeds(parent, structs.replace(parent, models=("gpt-4o",), rpm=4, expires_at=9)) == []
    assert exceeds(parent, structs.replace(parent, budgets=(KeyBudget(usd=4, tokens=1, per="day"),))) == []
    free = Key(id="c", operations=("*", "other"))
    assert exceeds(parent, free) == [
        *("models", "upstreams", "tools", "operations", "expires_at", "team", "rpm", "budgets", "may_limit_runs")
    ]
    assert exceeds(structs.replace(parent, operations=("*",)), structs.replace(parent, operations=("other",))) == [
        "operations"
    ]


def test_finding_a_key_costs_little() -> None:
    """A dictionary, one keyed hash, two comparisons: microseconds, whatever the machine does beside it."""
    held = ring(*(made(new_id(os.urandom(5)))[0] for _ in range(1000)))
    key, secret = made()
    held.take([key])
    best = min(_timed(held, secret) for _ in range(20))
    assert best < 20_000, f"{best} ns"


def _timed(held: Ring, secret: bytes) -> float:
    began = time.perf_counter_ns()
    for _ in range(100):
        held.find(secret)
    return (time.perf_counter_ns() - began) / 100
