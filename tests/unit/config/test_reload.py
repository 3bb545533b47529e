"""What changed, and what of it needs a restart."""

import pytest
from msgspec import structs

from gateway.config.reload import RESTART, diff, needs_restart
from gateway.config.schema import Budget, Config, Timeouts, Tls, Upstream

OLD = Config(
    upstreams={"a": Upstream(dialect="openai", url="http://a"), "b.c": Upstream(dialect="openai", url="http://b")}
)


def changed(**fields):
    return structs.replace(OLD, **fields)


def test_nothing_changed():
    assert diff(OLD, changed()) == []
    assert needs_restart(OLD, changed()) == []


def test_fields_entries_and_sections_are_named():
    ups = {
        "a": structs.replace(OLD.upstreams["a"], timeouts=Timeouts(connect=1), key="x"),
        "new": Upstream(dialect="gemini", url="http://n"),
    }
    new = changed(upstreams=ups, tls=Tls(certificate="c", key="k"), capture="full", aliases={"m.1": "x"})
    assert diff(OLD, new) == [
        'aliases."m.1"',
        "capture",
        "tls",
        'upstreams."b.c"',
        "upstreams.a.key",
        "upstreams.a.timeouts.connect",
        "upstreams.new",
    ]
    assert needs_restart(OLD, new) == []


def test_entries_of_a_list_are_named_by_their_position():
    old = changed(budgets=(Budget(scope="global", usd=1), Budget(scope="team", usd=1)))
    new = structs.replace(old, budgets=(Budget(scope="global", usd=2), *old.budgets[1:], Budget(scope="key", usd=1)))
    assert diff(old, new) == ["budgets.0.usd", "budgets.2"]
    assert diff(new, old) == ["budgets.0.usd", "budgets.2"]


def test_no_value_is_named():
    assert "sk-" not in str(diff(OLD, changed(admin_token="sk-canary")))


@pytest.mark.parametrize(
    "new",
    [
        changed(listen="127.0.0.1:1"),
        changed(admin="127.0.0.1:1"),
        changed(workers=2),
        changed(state="/elsewhere"),
        changed(journal=structs.replace(OLD.journal, directory="/elsewhere")),
        changed(identity=structs.replace(OLD.identity, links=1)),
        changed(spending=structs.replace(OLD.spending, redis="redis://:canary@h")),
        changed(spending=structs.replace(OLD.spending, prefix="other")),
    ],
)
def test_what_is_fixed_at_start_needs_a_restart(new):
    assert needs_restart(OLD, new) == diff(OLD, new) != []


def test_every_restart_path_is_a_field():
    for path in RESTART:
        section = OLD
        for name in path:
            section = getattr(section, name)
