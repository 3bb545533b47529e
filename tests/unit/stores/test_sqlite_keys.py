"""Keys on disk: what is kept, what is seen by workers and how soon, and what is in no file."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.config.places import keys as keys_place
from gateway.config.places import pepper as pepper_place
from gateway.config.roster import FILE, Roster, roster
from gateway.config.schema import Config
from gateway.key import Key, KeyBudget
from gateway.policy.key_rules import KeyRefused
from gateway.policy.keys import usable
from gateway.stores.secret_file import shared_secret
from gateway.stores.sqlite_keys import KeysUnusable, SqliteKeys, SqliteKeyStore

SECOND = 10**9


class Place:
    """A state directory with a clock of its own."""

    def __init__(self, directory: Path) -> None:
        self.config = Config(state=str(directory))
        self.path, self.pepper = keys_place(self.config), pepper_place(self.config)
        self.at = 1_790_000_000 * SECOND
        self.store = SqliteKeyStore(self.path, self.pepper, lambda: self.at)

    def keys(self, *, required: bool = False) -> SqliteKeys:
        return SqliteKeys(self.path, self.pepper, required=required)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state")


def test_a_key_is_made_once_and_recognised_by_its_secret_alone(place: Place) -> None:
    wanted = Key(
        id="ignored",
        name="ci",
        team="core",
        models=("gpt-*",),
        budgets=(KeyBudget(usd=5 * SECOND, per="day"),),
        metadata={"owner": "ann"},
        expires_at=place.at + 9 * SECOND,
    )
    key, secret = place.store.create(wanted, who="ann")
    assert key.id != "ignored"
    assert (key.created_at, key.revision) == (place.at, 1)
    assert secret.startswith(key.prefix)
    keys = place.keys()
    assert keys.required
    found = keys.find(secret.encode())
    assert found == place.store.get("ci") == place.store.get(key.id) == key
    assert keys.find(secret[:-1].encode()) is None
    keys.close()
    keys.close()


def test_no_file_holds_a_secret_and_all_are_private(place: Place) -> None:
    secrets = [place.store.create(Key(id="", name=f"k{n}"))[1] for n in range(3)]
    secrets.append(place.store.rotate("k0", overlap=SECOND)[1])
    files = [path for path in place.path.parent.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"keys.sqlite", "keys.pepper"}
    for path in files:
        data = path.read_bytes()
        assert not [secret for secret in secrets if secret[12:].encode() in data]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.path.parent.stat().st_mode) == 0o700


def test_rotating_changes_the_secret_and_may_leave_the_old_one_for_a_while(place: Place) -> None:
    key, first = place.store.create(Key(id="", name="ci"))
    keys = place.keys()
    rotated, second = place.store.rotate("ci", overlap=10 * SECOND)
    assert rotated.id == key.id
    assert keys.refresh()
    assert usable(keys.find(second.encode()), place.at)
    assert usable(keys.find(first.encode()), place.at + 9 * SECOND)
    _, third = place.store.rotate(key.id)
    keys.refresh()
    assert keys.find(first.encode()) is None
    assert keys.find(second.encode()) is None
    assert keys.find(third.encode()) is not None
    keys.close()


def test_disabling_is_for_good_and_said_once(place: Place) -> None:
    key, secret = place.store.create(Key(id="", name="ci"))
    keys = place.keys()
    disabled = place.store.disable("ci", who="ann", reason="left")
    place.at += 5
    assert place.store.disable(key.id) == disabled
    assert keys.refresh()
    found = keys.find(secret.encode())
    assert found is not None
    assert found.disabled_at == disabled.disabled_at
    with pytest.raises(KeyRefused, match="is disabled"):
        place.store.rotate("ci")
    assert [(c.kind, c.id, c.who, c.reason) for c in place.store.changes()] == [
        ("disable", key.id, "ann", "left"),
        ("create", key.id, "", ""),
    ]
    keys.close()


def test_names_and_ids_are_one_space(place: Place) -> None:
    key, _ = place.store.create(Key(id="", name="ci"))
    unnamed, _ = place.store.create(Key(id=""))
    assert unnamed.name == unnamed.id
    for name in ("ci", key.id):
        with pytest.raises(KeyRefused) as caught:
            place.store.create(Key(id="", name=name))
        assert caught.value.field == "name"
    with pytest.raises(KeyError):
        place.store.get("nobody")
    with pytest.raises(KeyError):
        place.store.rotate("nobody")
    assert [one.name for one in place.store.listed()] == ["ci", unnamed.name]


def test_an_id_that_is_taken_is_not_given_again(place: Place) -> None:
    entropy = itertools.chain([b"\1" * 5, b"a" * 32, b"\1" * 5, b"\2" * 5, b"b" * 32], itertools.repeat(b"\1" * 5))
    store = SqliteKeyStore(place.path, place.pepper, lambda: place.at, lambda size: next(entropy))
    first, second = store.create(Key(id=""))[0], store.create(Key(id=""))[0]
    assert first.id != second.id
    with pytest.raises(KeyRefused, match="no new id"):
        store.create(Key(id=""))
    assert len(store.listed()) == 2


def test_a_key_made_under_another_stays_within_it(place: Place) -> None:
    parent, _ = place.store.create(Key(id="", name="lead", team="core", models=("gpt-*",), rpm=10))
    child, secret = place.store.create(Key(id="", name="bot", parent="lead", models=("gpt-4o",), rpm=5))
    assert (child.parent, child.team) == (parent.id, "core")
    for wanted, field in (
        (Key(id="", parent="lead", rpm=5), "models"),
        (Key(id="", parent="lead", models=("gpt-4o",)), "rpm"),
        (Key(id="", parent="lead", models=("gpt-4o",), rpm=5, team="other"), "team"),
        (Key(id="", parent="nobody"), "parent"),
    ):
        with pytest.raises(KeyRefused) as caught:
            place.store.create(wanted)
        assert caught.value.field == field
    keys = place.keys()
    place.store.disable("lead")
    keys.refresh()
    found = keys.find(secret.encode())
    assert found is not None
    assert found.disabled_at
    with pytest.raises(KeyRefused, match="disabled"):
        place.store.create(Key(id="", parent="lead", models=("gpt-4o",), rpm=5))
    assert len(place.store.listed()) == 2, "what was refused left nothing behind"
    keys.close()


# -- what workers see -----------------------------------------------------------------------------------------------


def test_nothing_changed_is_nothing_read(place: Place) -> None:
    place.store.create(Key(id=""))
    keys = place.keys()
    before = keys._keys
    assert not keys.refresh()
    assert keys._keys is before
    keys.close()


def test_without_a_key_a_gateway_is_open_until_there_is_one_and_closed_for_ever_after(place: Place) -> None:
    keys = place.keys()
    assert not keys.required
    place.store.create(Key(id="", name="ci"))
    assert keys.refresh()
    assert keys.required
    place.path.unlink()
    keys.refresh()
    assert keys.required, "a lost file opens nothing"
    assert len(keys) == 1
    keys.close()
    forced = place.keys(required=True)
    assert forced.required
    forced.close()


MAKE = """
import sys, time
from pathlib import Path
from gateway.key import Key
from gateway.stores.sqlite_keys import SqliteKeyStore
state = Path(sys.argv[1])
store = SqliteKeyStore(state / "keys.sqlite", state / "keys.pepper", time.time_ns)
print(store.create(Key(id="", name="late"))[1], flush=True)
sys.stdin.readline()
store.disable("late")
print("disabled", flush=True)
"""


def test_a_change_by_another_process_is_in_force_at_the_next_look(place: Place) -> None:
    """A worker looks every quarter of a second, while it goes on with its calls."""
    keys = place.keys()
    assert not keys.refresh()
    with subprocess.Popen(
        [sys.executable, "-c", MAKE, str(place.path.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        secret = other.stdout.readline().strip()
        assert keys.refresh()
        assert keys.required
        assert usable(keys.find(secret.encode()), time.time_ns()).name == "late"
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "disabled\n"
        assert keys.refresh()
        assert keys.find(secret.encode()).disabled_at
        assert other.wait(60) == 0
    keys.close()


def test_while_somebody_writes_the_known_keys_stand(place: Place) -> None:
    _, secret = place.store.create(Key(id=""))
    keys = place.keys()
    writer = sqlite3.connect(place.path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    assert not keys.refresh()
    assert keys.find(secret.encode()) is not None
    writer.execute("ROLLBACK")
    writer.close()
    assert not keys.refresh()
    keys.close()


def test_a_file_that_cannot_be_read_is_said_once_and_the_known_keys_stand(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    _, secret = place.store.create(Key(id=""))
    keys = place.keys()
    whole = place.path.read_bytes()
    place.path.unlink()
    place.path.write_bytes(b"not a database" * 1000)
    with caplog.at_level(logging.ERROR):
        assert not keys.refresh()
        assert not keys.refresh()
    assert len(caplog.records) == 1
    assert keys.find(secret.encode()) is not None
    with pytest.raises(KeysUnusable):
        place.keys()
    with pytest.raises(KeysUnusable):
        place.store.listed()
    place.path.unlink()
    place.path.write_bytes(whole)
    assert keys.refresh()
    assert keys.find(secret.encode()) is not None
    keys.close()


def test_a_file_made_anew_is_followed(place: Place) -> None:
    place.store.create(Key(id=""))
    keys = place.keys()
    whole = place.path.read_bytes()
    place.path.unlink()
    copy = place.path.with_name("copy")
    copy.write_bytes(whole)
    copy.rename(place.path)
    _, secret = place.store.create(Key(id=""))
    assert keys.refresh()
    assert keys.find(secret.encode()) is not None
    keys.close()


def test_keys_without_their_pepper_are_refused(place: Place) -> None:
    place.store.create(Key(id=""))
    place.pepper.unlink()
    for use in (place.keys, lambda: place.store.create(Key(id="")), lambda: place.store.rotate("x")):
        with pytest.raises(KeysUnusable, match="not the file that the keys were made with"):
            use()


def test_all_processes_share_one_pepper(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    say = "import sys; from pathlib import Path; from gateway.stores.secret_file import shared_secret as s;"
    say += "print(s(Path(sys.argv[1])).hex())"
    racing = [subprocess.Popen([sys.executable, "-c", say, str(path)], stdout=subprocess.PIPE) for _ in range(4)]
    found = {process.communicate(timeout=20)[0].decode().strip() for process in racing}
    assert found == {shared_secret(path).hex()}
    assert len(shared_secret(path)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret"]


def test_the_roster_of_the_configuration_reads_this_file(place: Place) -> None:
    assert place.path.name == FILE
    assert roster(place.config) == Roster()
    key, _ = place.store.create(Key(id="", name="ci", team="core"))
    unnamed, _ = place.store.create(Key(id=""))
    assert roster(place.config) == Roster(frozenset({key.id, "ci", unnamed.id}), frozenset({"core"}), 2)


def test_workers_that_start_while_another_writes_wait_for_it(tmp_path: Path) -> None:
    """Several workers make the file at once; one that finds it locked must not give up."""
    path, pepper = tmp_path / "keys.sqlite", tmp_path / "keys.pepper"
    SqliteKeys(path, pepper).close()
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, writer.execute, ["ROLLBACK"])
    release.start()
    try:
        keys = SqliteKeys(path, pepper)
        assert not keys.refresh()
        keys.close()
    finally:
        release.join()
        writer.close()
