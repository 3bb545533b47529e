"""Route: where does this call go? Behind the identity, for rules look at run and agent; before the rights of a key are
checked, for those hold for where it really goes.

Implements `ports.Router`. What is chosen is applied as an alias is: the model by a minimal
splice, the upstream by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from gateway.call import Call, Request, Usage
from gateway.key import Key
from gateway.policy.asked_facts import output_limit
from gateway.policy.canary import State
from gateway.policy.estimate import declares
from gateway.policy.headroom import Headroom
from gateway.policy.keys import uses
from gateway.policy.matching import REMEMBERED
from gateway.policy.pace import Paces
from gateway.policy.routing import Learned, Plan, decide
from gateway.policy.routing_rules import BYTES_PER_TOKEN, Asking, Facts, Rules, Target, Way
from gateway.ports import Exchange, Gateway
from gateway.stages.cascade import Cascades
from gateway.stages.cheaper import retarget
from gateway.stages.learned import LearnedChoice, compared
from gateway.stages.translated import is_translated, may_lead, sayable

USUAL_ANSWER = 500  # tokens, where the request names no limit
CACHED = 0.9  # of a prompt that its run has sent before
IMAGES = (b'"image', b'"input_image"')
JSON = ("response_format", "text", "generationConfig", "generation_config", "output_format")


class Known(Struct, frozen=True, eq=False):
    """What was found out for calls of the same scopes."""

    way: Way
    key: Key | None  # with which they came: another one of the same id may have other rights


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
        self.rules, self.trials, self.learned = rules, trials, learned
        self.paces = paces if rules.look_for_quick else None  # None: no rule looks at what answers take,
        self.rooms = rooms  # or at rate limits
        self._known: dict[tuple[str | bytes, ...], Known] = {}  # by scopes
        self._cascades = cascades  # None: no rule has one

    def plan(self, call: Call, gw: Gateway) -> Plan | None:
        """Its targets in order; None where no rule is about this call. Changes nothing."""
        return self._planned(call, call.request, gw)

    def _planned(self, call: Call, plain: Request, gw: Gateway) -> Plan | None:
        way = self._way(call, gw)
        if not way:
            return None
        here = Here(self, call, plain, gw)
        return decide(way, here, here)

    def _way(self, call: Call, gw: Gateway) -> Way:
        """What was found is remembered: about 0.5 us a call."""
        asked, who, route, key = call.asked, call.who, call.route, call.key
        scopes = (
            *(asked.model, call.model_sent, route.template, route.upstream, route.dialect, call.request.method),
            *(who.agent, who.agent_version, who.request_class, who.key_id),
        )
        known = self._known.get(scopes)
        if known is None or known.key is not key or call.websocket:
            land = Around(call, gw)
            known = Known(self.rules.way(land.facts(), land), key)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            if not call.websocket:
                self._known[scopes] = known
        return known.way

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
        if self.learned is not None:
            self.learned.mark(call, found, gw)
        if found.breakpoints is not None and is_translated(call, gw.specs[target.upstream], gw):
            found = replace(found, canary="", breakpoints=None)  # marks say nothing there
        if call.request is not plain and (
            target.model != (call.model_sent or call.asked.model) or is_translated(call, gw.specs[target.upstream], gw)
        ):
            call.request = plain  # a compressed body can be neither spliced nor translated
        retarget(call, gw, target.model, target.upstream)
        call.further = found.targets[1:]
        if self._cascades is not None:
            self._cascades.watch(call, found)
        call.notes = {**call.notes, "route": str(found.rule), "route_why": found.why, "route_to": target.name}
        if found.arm:
            _tried(call, found)
        if self.rules.look_back and call.who.run_id and not found.returns:
            gw.links.put(_place(call), f"{call.started_at // 10**9} {target.name}".encode()[:200])

    def hear(self, call: Call, exchange: Exchange, gw: Gateway) -> None:
        """The head of an answer: what it says of the limits of the target's own key."""
        if self.rooms is not None and gw.specs[call.route.upstream].auth:
            name = Target(call.attempts[-1].model, call.route.upstream).name
            self.rooms.hear(name, exchange.status, exchange.names, gw.now())

    def learn(self, call: Call, gw: Gateway) -> None:
        """After the end: what the first byte took, and whether the answer kept to its schema."""
        if self.learned is not None:
            self.learned.judge(call, gw)
        if self.paces is None or "route" not in call.notes:
            return
        for attempt in call.attempts:
            if attempt.ended:
                name = f"{attempt.target.upstream}/{attempt.model}"
                self.paces.learn(name, attempt.ended - attempt.began, call.ended)


class Around(Struct):
    """Implements policy.routing_rules.Land."""

    call: Call
    gw: Gateway

    def facts(self) -> Facts:
        """What is the same for all calls of its scopes."""
        call, who, key = self.call, self.call.who, self.call.key
        return Facts(
            model=call.asked.model,
            sent=call.model_sent or call.asked.model,
            route=call.route.template,
            upstream=call.route.upstream,
            agent=who.agent,
            agent_version=who.agent_version,
            key=(key.id, key.name) if key is not None else ("", ""),
            team=key.team if key is not None else "",
            request_class=who.request_class,
        )

    def usable(self, upstream: str) -> bool:
        call, specs = self.call, self.gw.specs
        spec, here = specs.get(upstream), specs.get(call.route.upstream)
        if spec is None or here is None or spec.tool is not None:
            return False
        if spec.family != here.family and not may_lead(call, upstream, self.gw, home=here):
            return False
        return call.key is None or uses(call.key, upstream)

    def kin(self, upstream: str) -> bool:
        specs = self.gw.specs
        here = specs.get(self.call.route.upstream)
        return here is not None and specs[upstream].family == here.family

    def fluent(self, upstream: str) -> bool:
        spec = self.gw.specs.get(upstream)
        return spec is not None and not is_translated(self.call, spec, self.gw)


class Here(Struct):
    """One call as rules look at it, and the world around it: policy.routing_rules.Asking, policy.routing.World. Nothing
    is looked up before it is asked for."""

    router: Router
    call: Call
    plain: Request  # its request with the body decoded
    gw: Gateway

    @property
    def tokens(self) -> int:
        return len(self.call.request.body) // BYTES_PER_TOKEN

    @property
    def answer(self) -> int:
        return output_limit(self.call.asked) or 0

    @property
    def needs(self) -> frozenset[str]:
        call, needs = self.call, set[str]()
        asked = call.asked
        if declares(asked.tools):
            needs.add("tools")
        if any(name in asked.fields and b"json" in bytes(asked.fields[name]).lower() for name in JSON):
            needs.add("json")
        if self.router.rules.look_for_images and any([mark in call.request.body for mark in IMAGES]):
            needs.add("images")
        return frozenset(needs)

    @property
    def names(self) -> Mapping[bytes, bytes]:
        return self.call.request.names

    @property
    def now(self) -> int:
        return self.call.started_at

    @property
    def unit(self) -> str:
        return self.call.who.run_id or self.call.id

    @property
    def free(self) -> bool:
        who = self.call.who
        return who.step <= 1 or who.depth > 0 or bool(who.parent_agent)

    @property
    def shut(self) -> Callable[[Target], bool] | None:
        return self._shut if self.gw.trials.wary(self.gw) else None

    def _shut(self, target: Target) -> bool:
        return self.gw.trials.shut(target.upstream, target.model, self.gw)

    @property
    def trials(self) -> Mapping[str, State]:
        return self.router.trials()

    @property
    def learned(self) -> Learned | None:
        learned = self.router.learned
        return learned.chooser(self.call, self.gw) if learned is not None else None

    @property
    def marked(self) -> bool:
        return self.gw.dialects[self.call.route.dialect].caches_marked

    def price(self, target: Target, facts: Asking, warm: bool) -> int | None:
        tokens, gw = facts.tokens, self.gw
        usage = Usage(tokens, facts.answer or USUAL_ANSWER, cache_read_tokens=int(tokens * CACHED) if warm else 0)
        provider = gw.specs[target.upstream].target.provider
        return gw.prices.price(provider, target.model, usage, self.call.started_at / 1e9).total

    def pace(self, target: Target, now: int) -> float:
        paces = self.router.paces
        return paces.expect(target.name, self.gw.monotonic()) if paces is not None else 0.0

    def draw(self) -> float:
        return int.from_bytes(self.gw.random(4), "little") / 2**32

    def kept(self, seconds: float) -> str:
        call = self.call
        stated = self.gw.links.get(_place(call)) if call.who.run_id else None
        if stated is None:
            return ""
        at, _, name = stated.decode(errors="replace").partition(" ")
        return name if at.isdigit() and call.started_at // 10**9 - int(at) < seconds else ""

    def room(self, target: Target, facts: Asking) -> float:
        rooms = self.router.rooms
        return 1.0 if rooms is None else rooms.room(target.name, facts.tokens + facts.answer, self.call.started_at)

    def sayable(self, target: Target) -> bool:
        return sayable(self.call, self.gw.specs[target.upstream], self.gw, self.plain.body)


def _tried(call: Call, plan: Plan) -> None:
    """A trial: what is another for the canary's calls, and which calls are watched."""
    if plan.arm == "canary":
        call.marks = plan.breakpoints
    if plan.canary:
        call.notes |= {"canary": plan.canary, "canary_arm": plan.arm}


def _place(call: Call) -> bytes:
    """Where the target of its run is kept."""
    run = f"{call.key.team if call.key is not None else call.who.tenant}|{call.who.run_id}"
    return b"route" + blake2b(run.encode(errors="replace"), digest_size=12).digest()
