"""The matcher's mind: what it serves, to whom, what it learns, and what people can tell it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec import structs

from gateway.policy.cache_key import entry_name
from gateway.policy.cached import Chosen
from gateway.ports import Feedback, Lesson

HOUR = 3600 * 10**9


async def test_an_empty_partition_needs_no_vector(mind: Any) -> None:
    _, match = await mind.ask("who built the red barn")
    assert (match.why, match.key) == ("empty", b"")
    assert mind.embedder.asked == []


async def test_it_learns_to_serve_and_keeps_the_target(mind: Any) -> None:
    served, wrong = await mind.live(900)
    assert served > 150
    assert wrong <= 0.02 * served
    (scope,) = mind.state().scopes
    assert scope.lower <= wrong / served <= scope.upper
    assert scope.hits == served
    assert scope.saved == 100 * served
    assert scope.cut <= 1
    verified = [detail["right"] for kind, detail in mind.events if kind == "cache_verified"]
    assert len(verified) == scope.verified > 0
    assert verified.count(False) == scope.wrong
    assert scope.shadow_cost == 100 * scope.verified


async def test_a_scope_that_only_learns_serves_nothing_and_knows_what_it_would_have(mind: Any) -> None:
    assert await mind.live(1000, serve=False) == (0, 0)
    (scope,) = mind.state().scopes
    assert (scope.mode, scope.hits, scope.saved, scope.shadow_cost) == ("shadow", 0, 0, 0)
    assert scope.would > 200
    assert scope.verified == scope.would, "every would-be hit was checked for nothing"
    assert (await mind.live(300))[0] > 100, "and it begins to serve with all of that evidence"


async def test_equal_answers_are_of_one_group_though_others_lie_nearer(mind: Any) -> None:
    nearer = [f"who built the red barn {word}" for word in ("alone", "first", "here", "there", "once", "then")]
    for text, answer in [
        ("who really built the red barn with its wide doors", "Ann."),
        *zip(nearer, nearer, strict=True),
    ]:
        inquiry, match = await mind.ask(text)
        await mind.answer(inquiry, match, answer)
    inquiry, match = await mind.ask("who built the red barn")
    await mind.answer(inquiry, match, "ann")
    groups = {question.text: question.group for question in mind.shelf}
    assert groups["who built the red barn"] == groups["who really built the red barn with its wide doors"]
    assert len(set(groups.values())) == 7, "and nobody else is"


async def test_nothing_crosses_a_partition_nor_a_tenant(mind: Any) -> None:
    await mind.live(700)
    for partition, tenant in ((b"q", "t"), (b"r", "other")):
        for _ in range(100):
            _, match = await mind.ask("who built the red barn", partition, tenant=tenant, scope=f"{tenant}/a/m")
            assert match.key == b""
    _, match = await mind.ask("who built the red barn")
    assert match.key, "where it was learned it is served"


async def test_ten_thousand_lookups_of_many_tenants_never_meet(mind: Any) -> None:
    """Each scope serves whatever no guard forbids, and all tenants ask the same."""
    tenants = [f"tenant {number}" for number in range(100)]
    owner: dict[bytes, str] = {}
    for tenant in tenants:
        for text in ("who built the red barn", "when was the old mill built", "how tall is the iron tower"):
            inquiry, match = await mind.ask(text, tenant.encode(), tenant=tenant, scope=f"{tenant}/a/m")
            owner[await mind.answer(inquiry, match, f"{tenant}: {text}")] = tenant
    for studied in mind.scopes.all():
        studied.scope.cut = -math.inf
    served = 0
    for number in range(10_000):
        tenant = mind.draw.choice(tenants)
        text = mind.draw.choice(
            ("by whom was the red barn built", "when was the old mill built", "how tall is the tower")
        )
        _, match = await mind.ask(text, tenant.encode(), tenant=tenant, scope=f"{tenant}/a/m")
        served += bool(match.key)
        assert not match.key or owner[match.key] == tenant, number
    assert served > 5_000


async def test_what_one_tenant_does_teaches_no_other(mind: Any) -> None:
    for number in range(200):  # a poisoner: paraphrases that all get one answer
        inquiry, match = await mind.ask(f"who built the red barn {number}", b"x", tenant="bad", scope="bad/a/m")
        await mind.answer(inquiry, match, "me")
    served, wrong = await mind.live(1000)
    assert served > 0
    assert wrong <= 0.02 * served
    names = [scope.scope for scope in mind.state().scopes]
    assert sorted(names) == ["bad/a/m", "t/a/m"]


async def test_answers_grow_too_old(mind: Any) -> None:
    await mind.live(700)
    mind.now += HOUR + 1
    assert (await mind.ask("who built the red barn"))[1].key == b""
    mind.engine.tidy()
    assert len(mind.shelf) == 0
    assert list(mind.memory.questions(0)) == []


async def test_without_an_embedder_nothing_is_served_and_nothing_breaks(mind: Any) -> None:
    await mind.live(700)
    mind.away = True
    inquiry, match = await mind.ask("who built the red barn")
    assert (match.key, match.why) == (b"", "no_embedder")
    await mind.answer(inquiry, match, "x")
    mind.time += 2 * 10**9
    late = await mind.engine.ask(inquiry, 10**9)
    assert (late.key, late.why) == (b"", "late")


async def test_an_answer_that_comes_too_late_is_no_hit(mind: Any) -> None:
    await mind.live(700)
    before = mind.state().scopes[0].hits
    slow = mind.embed

    async def embed(text: str, until: int) -> Any:
        mind.time += 10**10
        return await slow(text, until)

    mind.engine._outside = structs.replace(mind.engine._outside, embed=embed)
    assert (await mind.ask("who built the red barn"))[1].why == "late"
    assert mind.state().scopes[0].hits == before


async def test_a_hit_that_the_worker_could_not_give_is_taken_back(mind: Any) -> None:
    await mind.live(700)
    before = mind.state().scopes[0]
    inquiry, match = await mind.ask("who built the red barn")
    assert match.key
    await mind.answer(inquiry, match, "the builder of red barn")  # not checked: it went upstream as a miss
    after = mind.state().scopes[0]
    assert (after.hits, after.saved, after.shadow_cost) == (before.hits, before.saved, before.shadow_cost)
    assert mind.shelf.of_key(match.key) is None


async def test_checking_stops_where_it_costs_too_much(mind: Any) -> None:
    mind.engine.shadow_share = 0.0
    served, _ = await mind.live(2000)
    (scope,) = mind.state().scopes
    assert served > 600
    assert scope.shadow_cost == 150 * 100, "the first checks are always made"


async def test_too_many_wrong_answers_trip_the_breaker_and_it_comes_back_with_new_evidence(mind: Any) -> None:
    await mind.live(900)
    (studied,) = mind.scopes.all()
    for _ in range(30):  # what it learns from one wrong answer keeps it from the next; so they are put there
        studied.scope.recent.add(False, 1.0)
    tripped = False
    while not tripped:
        inquiry, match = await mind.ask(f"who built the {mind.draw.choice(('red barn', 'old mill'))}", sample=0.5)
        assert match.key, "it serves until it is known"
        if match.sampled:
            await mind.answer(inquiry, match, "somebody else", checked=True)
            tripped = mind.state().scopes[0].tripped
    opened = [detail for kind, detail in mind.events if kind == "cache_breaker"]
    assert [detail["open"] for detail in opened] == [True]
    assert mind.state().scopes[0].trips == 1
    for thing in ("red barn", "old mill", "tall tower", "red bridge"):
        assert (await mind.ask(f"who built the {thing}"))[1].key == b""
    served, wrong = await mind.live(1500)
    assert served > 0
    assert wrong <= 0.05 * served
    assert [detail["open"] for kind, detail in mind.events if kind == "cache_breaker"] == [True, False]


async def test_who_asks_for_another_target_gets_another_cut(mind: Any) -> None:
    await mind.live(900)
    await mind.ask("who built the red barn", target=0.001)
    strict = mind.state().scopes[0]
    await mind.ask("who built the red barn", target=0.2)
    loose = mind.state().scopes[0]
    assert (strict.target, loose.target) == (0.001, 0.2)
    assert strict.cut > loose.cut


# -- people -----------------------------------------------------------------------------------------------------------


async def hit(mind: Any) -> tuple[Any, Any]:
    for _ in range(50):
        inquiry, match = await mind.ask("who built the red barn")
        if match.key:
            return inquiry, match
    raise AssertionError("nothing is served")


async def test_what_was_called_wrong_is_never_given_to_that_text_again(mind: Any) -> None:
    await mind.live(900)
    inquiry, match = await hit(mind)
    cut = mind.state().scopes[0].cut
    noted = mind.engine.say(Feedback(False, call=inquiry.call))
    assert (noted.hits, noted.scopes) == (1, ("t/a/m",))
    scope = mind.state().scopes[0]
    assert scope.reported == 1
    assert scope.cut > cut
    wrong = mind.answers[match.key]
    for text in ("who built the red barn", "WHO built  the red barn"):
        for _ in range(20):
            _, again = await mind.ask(text)
            assert not again.key or mind.answers[again.key] != wrong
    mind.memory.close()
    mind.open()
    await mind.live(900)
    for _ in range(20):
        _, again = await mind.ask("who built the red barn")
        assert not again.key or mind.answers[again.key] != wrong, "also after a restart, also with new evidence"


async def test_an_answer_that_is_wrong_in_itself_is_forgotten(mind: Any) -> None:
    await mind.live(900)
    _, match = await hit(mind)
    assert mind.engine.say(Feedback(False, entry=entry_name(match.key))).hits > 0
    assert mind.shelf.of_key(match.key) is None


async def test_praise_teaches_and_blocks_nothing(mind: Any) -> None:
    await mind.live(900)
    inquiry, _ = await hit(mind)
    labels = mind.state().scopes[0].labels
    assert mind.engine.say(Feedback(True, call=inquiry.call)).hits == 1
    scope = mind.state().scopes[0]
    assert (scope.labels, scope.reported) == (labels + 1, 0)
    assert (await mind.ask("who built the red barn"))[1].key


async def test_unknown_calls_are_no_news(mind: Any) -> None:
    await mind.live(100)
    assert mind.engine.say(Feedback(False, call="nobody")).hits == 0
    assert mind.engine.say(Feedback(False, entry="ffffffffffffffff")).hits == 0


@pytest.mark.parametrize(("chosen", "left"), [(Chosen(), 0), (Chosen(tenant="t"), 0), (Chosen(tenant="u"), 30)])
async def test_cleared_answers_are_forgotten(mind: Any, chosen: Chosen, left: int) -> None:
    for number in range(30):
        inquiry, match = await mind.ask(f"what is written on stone number {number}")
        await mind.answer(inquiry, match, str(number))
    assert mind.engine.forget(chosen).hits == 30 - left
    assert len(mind.shelf) == left


# -- what lasts -------------------------------------------------------------------------------------------------------


async def test_evidence_questions_and_counts_outlive_the_process(mind: Any) -> None:
    await mind.live(900)
    before = mind.state()
    mind.engine.keep()
    mind.memory.close()
    mind.open()
    after = mind.state()
    assert after.scopes == before.scopes
    assert after.entries == before.entries > 0
    served, wrong = await mind.live(200)
    assert served > 50
    assert wrong <= 0.05 * served


async def test_a_ticket_of_another_question_settles_nothing(mind: Any) -> None:
    await mind.live(300)
    _, match = await mind.ask("who built the red barn")
    other, _ = await mind.ask("when was the old mill built", b"elsewhere")
    labels = mind.state().scopes[0].labels
    await mind.engine.learn(Lesson(other, match.ticket, b"k" * 32, "x", mind.now, 1))
    assert mind.state().scopes[0].labels == labels


async def test_a_new_scope_has_no_cut(mind: Any) -> None:
    await mind.live(20)
    (studied,) = mind.scopes.all()
    assert math.isinf(studied.scope.cut)
    assert studied.cut == 2.0
