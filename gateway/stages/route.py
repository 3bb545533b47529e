"""Route: where does this call go? Behind the identity, for rules look at run and agent; before the rights of a key are
checked, for those hold for where it really goes.

Implements `ports.Router`. What is chosen is applied as an alias is: the model by a minimal
splice, the upstream by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from gateway.call import Call, Request, Usage
from gateway.policy.asked_facts import output_limit
from gateway.policy.canary import State
from gateway.policy.headroom import Headroom
from gateway.policy.keys import uses
from gateway.policy.pace import Paces
from gateway.policy.routing import Facts, Plan, Rules, Target, World
from gateway.ports import Exchange, Gateway
from gateway.stages.cascade import Cascades
from gateway.stages.cheaper import retarget
from gateway.stages.learned import LearnedChoice, compared
from gateway.stages.translated import is_translated, may_lead, sayable

USUAL_ANSWER = 500  # tokens, where the request names no limit
CACHED = 0.9  # of a prompt that its run has sent before
JSON = ("response_format", "text", "generationConfig", "generation_config", "output_format")


class Router:
    """The routes of one configuration. `trials`: how each canary that has ended did. `paces` and `rooms`
    outlive it. `learned`: None where no rule learns."""

    def __init__(
        self,
        rules: Rules,
        trials: Callable[[], Mapping[str, State]],
        paces: Paces,
        rooms: Headroom | None = None,
        learned: LearnedChoice | None = None,
        *,
        cascades: Cascades | None = None,
    ) -> None:
        self._rules, self._trials, self._paces, self._learned = rules, trials, paces, learned
        self._cascades = cascades  # None: no rule has one
        self._rooms = rooms  # None: no rule looks at rate limits

    def plan(self, call: Call, gw: Gateway) -> Plan | None:
        """Its targets in order; None where no rule is about this call. Changes nothing."""
        return self._planned(call, call.request, gw)

    def _planned(self, call: Call, plain: Request, gw: Gateway) -> Plan | None:
        return self._rules.plan(self._facts(call), self._world(call, plain, gw))

    def route(self, call: Call, plain: Request, gw: Gateway) -> None:
        """Send the call to the first of its targets, and note why. `plain`: its request with the body decoded."""
        if call.asked.gated or not call.asked.model or call.websocket:
            return
        if call.request.pair is not None:
            compared(call, gw)
            return
        found = self._planned(call, plain, gw)
        if found is None:
            return
        target = found.targets[0]
        if self._learned is not None:
            self._learned.mark(call, found, gw)
        if target.model != (call.model_sent or call.asked.model) or is_translated(call, gw.specs[target.upstream], gw):
            call.request = plain  # a compressed body can be neither spliced nor translated
        retarget(call, gw, target.model, target.upstream)
        call.further = found.targets[1:]
        if self._cascades is not None:
            self._cascades.watch(call, found)
        call.notes = {**call.notes, "route": str(found.rule), "route_why": found.why, "route_to": target.name}
        if found.canary:
            call.notes |= {"canary": found.canary, "canary_arm": found.arm}
        if call.who.run_id and not found.returns:
            gw.links.put(_place(call), f"{call.started_at // 10**9} {target.name}".encode()[:200])

    def hear(self, call: Call, exchange: Exchange, gw: Gateway) -> None:
        """The head of an answer: what it says of the limits of the target's own key."""
        if self._rooms is not None and gw.specs[call.route.upstream].auth:
            name = Target(call.attempts[-1].model, call.route.upstream).name
            self._rooms.hear(name, exchange.status, exchange.names, gw.now())

    def learn(self, call: Call, gw: Gateway) -> None:
        """After the end: what the first byte took, and whether the answer kept to its schema."""
        if self._learned is not None:
            self._learned.judge(call, gw)
        for attempt in call.attempts:
            if "route" in call.notes and attempt.ended:
                name = Target(attempt.model, attempt.target.upstream).name
                self._paces.learn(name, attempt.ended - attempt.began, call.ended)

    def _facts(self, call: Call) -> Facts:
        asked, who, route, key = call.asked, call.who, call.route, call.key
        return Facts(
            model=asked.model,
            sent=call.model_sent or asked.model,
            route=route.template,
            upstream=route.upstream,
            agent=who.agent,
            agent_version=who.agent_version,
            key=(key.id, key.name) if key is not None else ("", ""),
            team=key.team if key is not None else "",
            request_class=who.request_class,
            size=len(call.request.body),
            answer=output_limit(asked) or 0,
            needs=self._needs(call),
            names=call.request.names,
            now=call.started_at,
            unit=who.run_id or call.id,
            free=who.step <= 1 or who.depth > 0 or bool(who.parent_agent),
        )

    def _needs(self, call: Call) -> frozenset[str]:
        asked, needs = call.asked, set[str]()
        if asked.tools:
            needs.add("tools")
        if any(name in asked.fields and b"json" in bytes(asked.fields[name]).lower() for name in JSON):
            needs.add("json")
        if self._rules.look_for_images and b'"image' in call.request.body:
            needs.add("images")
        return frozenset(needs)

    def _world(self, call: Call, plain: Request, gw: Gateway) -> World:
        specs, key, now, rooms = gw.specs, call.key, call.started_at, self._rooms
        here = specs.get(call.route.upstream)

        def usable(upstream: str) -> bool:
            spec = specs.get(upstream)
            if spec is None or here is None or spec.tool is not None:
                return False
            if spec.family != here.family and not may_lead(call, upstream, gw, home=here):
                return False
            return key is None or uses(key, upstream)

        def price(target: Target, facts: Facts, warm: bool) -> int | None:
            tokens = facts.tokens
            usage = Usage(tokens, facts.answer or USUAL_ANSWER, cache_read_tokens=int(tokens * CACHED) if warm else 0)
            return gw.prices.price(specs[target.upstream].target.provider, target.model, usage, now / 1e9).total

        def kept(seconds: float) -> str:
            stated = gw.links.get(_place(call)) if call.who.run_id else None
            if stated is None:
                return ""
            at, _, name = stated.decode(errors="replace").partition(" ")
            return name if at.isdigit() and now // 10**9 - int(at) < seconds else ""

        def room(target: Target, facts: Facts) -> float:
            return 1.0 if rooms is None else rooms.room(target.name, facts.tokens + facts.answer, now)

        return World(
            usable=usable,
            price=price,
            pace=lambda target, at: self._paces.expect(target.name, gw.monotonic()),
            draw=lambda: int.from_bytes(gw.random(4), "little") / 2**32,
            kept=kept,
            trials=self._trials(),
            learned=self._learned.chooser(call, gw) if self._learned is not None else None,
            room=room,
            kin=lambda upstream: here is not None and specs[upstream].family == here.family,
            shut=(lambda target: gw.trials.shut(target.upstream, target.model, gw)) if gw.trials.wary(gw) else None,
            sayable=lambda target: sayable(call, specs[target.upstream], gw, plain.body),
        )


def _place(call: Call) -> bytes:
    """Where the target of its run is kept."""
    run = f"{call.key.team if call.key is not None else call.who.tenant}|{call.who.run_id}"
    return b"route" + blake2b(run.encode(errors="replace"), digest_size=12).digest()
