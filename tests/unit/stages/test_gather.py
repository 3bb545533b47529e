"""An answer is gathered up to a limit, and anew for another attempt."""

from gateway.stages.gather import Gathered


def test_what_is_too_large_is_let_go_for_good() -> None:
    gathered = Gathered(5)
    gathered.gather(b"abc")
    gathered.gather(b"de")
    assert gathered.pieces == [b"abc", b"de"]
    gathered.gather(b"f")
    assert gathered.pieces is None
    gathered.gather(b"g")
    assert gathered.pieces is None


def test_another_attempt_begins_from_nothing() -> None:
    gathered = Gathered(5)
    gathered.gather(b"abcdef")
    gathered.restart()
    gathered.gather(b"abcde")
    assert gathered.pieces == [b"abcde"], "the size of what was dropped does not count"


def test_what_is_not_wanted_is_not_gathered_by_another_attempt_either() -> None:
    gathered = Gathered(5, wanted=False)
    gathered.gather(b"a")
    gathered.restart()
    gathered.gather(b"a")
    assert gathered.pieces is None
