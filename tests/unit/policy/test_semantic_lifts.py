from gateway.policy.semantic_guards import GUARDS, forbidding, vetoed
from gateway.policy.semantic_lifts import LIFTABLE, Lifts, Mates
from gateway.policy.semantic_text import Said


def taught(lifts, right, wrong, guard="name", group=1, agreed=False):
    for label in (*[True] * right, *[False] * wrong):
        lifts.learn([(group, guard, agreed, label)])
    return lifts


def test_at_first_every_guard_holds():
    assert not Lifts(0.02).of(1, frozenset())


def test_a_guard_that_forbids_what_is_right_is_lifted_and_only_that_one():
    assert taught(Lifts(0.02), 200, 0).of(1, frozenset()) == {"name"}


def test_few_labels_lift_nothing():
    assert not taught(Lifts(0.01), 25, 0).of(1, frozenset())


def test_a_group_goes_its_own_way_where_it_is_known():
    lifts = taught(Lifts(0.02), 400, 0)
    taught(lifts, 0, 5, group=2)
    assert lifts.of(1, frozenset()) == lifts.of(3, frozenset()) == {"name"}
    assert not lifts.of(2, frozenset())


def test_where_the_scope_says_otherwise_a_group_needs_much_evidence():
    lifts = taught(Lifts(0.02), 0, 500, group=2)
    assert not taught(lifts, 100, 0).of(1, frozenset())
    assert taught(lifts, 300, 0).of(1, frozenset()) == {"name"}


def test_it_holds_again_when_it_turns_out_wrong():
    lifts = taught(Lifts(0.02), 200, 0)
    assert not taught(lifts, 0, 20).of(1, frozenset())


def test_what_one_answer_teaches_counts_once_and_wrong_if_any_was():
    lifts = Lifts(0.02)
    for _ in range(20):
        lifts.learn([(1, "name", False, True)] * 16)
    assert not lifts.of(1, frozenset())
    lifts.learn([(1, "name", False, True), (1, "name", False, False)])
    assert lifts.scope["name"].wrong == lifts.groups[1, "name"].wrong == 1


def test_where_neighbours_agree_a_guard_is_lifted_by_what_is_known_of_such_places():
    lifts = taught(Lifts(0.02), 100, 100)
    taught(lifts, 200, 1, agreed=True)
    assert lifts.of(1, frozenset(("name",))) == lifts.of(3, frozenset(("name",))) == {"name"}
    assert not lifts.of(1, frozenset())
    assert not lifts.of(3, frozenset())


def test_neighbours_say_nothing_about_what_they_have_all():
    weather = [Said(f"what is the weather in {town} on sunday") for town in ("Oslo", "Rome", "Lima", "Bonn")]
    assert Mates(weather).vary(weather[0]) == {"name"}
    assert Mates(weather).lack(frozenset(("oslo",)))
    assert not Mates(weather).lack(frozenset(("weather",)))
    one = [Said(f"{way} the weather in Oslo") for way in ("what is", "tell me", "how is", "say")]
    assert not Mates(one).vary(one[0])
    assert not Mates(one).vary(Said("what is the weather in Oslo"))


def test_directions_and_opposites_stay_forbidden_and_numbers_but_where_neighbours_agree():
    lifts, every = Lifts(0.5), (*GUARDS, "exchanged")
    for guard in every:
        taught(lifts, 500, 0, guard)
        taught(lifts, 500, 0, guard, agreed=True)
    assert lifts.of(1, frozenset()) == LIFTABLE - {"number"}
    assert lifts.of(1, frozenset(every)) == LIFTABLE == frozenset(every) - {"direction", "opposite"}


def test_a_lifted_guard_is_not_asked_and_the_others_are():
    one, other = Said("Did Bob pay 5 dollars for Rome?"), Said("Did Bob pay 6 dollars for Oslo?")
    assert vetoed(one, other, frozenset(("name",))) == "number"
    other = Said("Did Bob pay 5 dollars for Oslo?")
    assert vetoed(one, other) == "name"
    assert vetoed(one, other, frozenset(("name",))) == ""
    assert forbidding(one, other, LIFTABLE) == ["name"]
