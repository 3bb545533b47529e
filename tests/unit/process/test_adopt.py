from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.config.load import Loaded
from gateway.config.schema import Config, Identity, Journal, Limits, Prices, Spending, Tls, Upstream
from gateway.config.source import Document
from gateway.process.adopt import ListenerMoved, adopted, files

OLD = Config(state="/s", journal=Journal(directory="/s/journal"))


def test_what_can_change_changes() -> None:
    new = replace(
        OLD, capture="full", limits=Limits(drain_seconds=5), journal=Journal(directory="/s/journal", fsync=True)
    )
    assert adopted(OLD, new) == (new, ())


def test_what_needs_a_restart_stays_and_is_named() -> None:
    new = replace(
        OLD,
        workers=4,
        state="/t",
        journal=Journal(directory="/t/journal", required=True),
        identity=Identity(links=7, tenant="acme"),
        spending=Spending(redis="redis://h", prefix="p", queue_seconds=7),
    )
    kept, waiting = adopted(OLD, new)
    assert waiting == (
        "identity.links",
        "journal.directory",
        "spending.prefix",
        "spending.redis",
        "state",
        "workers",
    )
    assert (kept.workers, kept.state, kept.journal.directory) == (1, "/s", "/s/journal")
    assert kept.identity.links == OLD.identity.links
    assert kept.spending == replace(OLD.spending, queue_seconds=7)
    assert (kept.journal.required, kept.identity.tenant) == (True, "acme")


@pytest.mark.parametrize("field", ["listen", "admin"])
def test_a_listener_cannot_move(field: str) -> None:
    with pytest.raises(ListenerMoved, match=rf"`{field}` \(.* to 127.0.0.1:1\) cannot change while"):
        adopted(OLD, replace(OLD, **{field: "127.0.0.1:1"}))


def test_every_file_a_configuration_is_made_of() -> None:
    config = Config(
        tls=Tls(certificate="/c.pem", key="/k.pem"),
        prices=Prices(litellm_file="/p.json"),
        upstreams={"a": Upstream(dialect="openai", url="https://x", ca_file="/ca.pem")},
    )
    found = {str(path) for path in files(Loaded(config, Path("/t.yaml"), Document()))}
    assert found == {"/c.pem", "/k.pem", "/p.json", "/ca.pem", "/t.yaml"}
    assert files(Loaded(Config(), None, Document())) == []
