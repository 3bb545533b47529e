"""Admit: hold what a call may cost at most, in every account it counts in. Behind `arrive` and `enter`, since it must
be known who asks for what; before everything that may cost something.

Rules
1. One reservation for all accounts, or none: `policy.limits` says what is asked, `ports.Budgets` how it holds.
2. What does not fit is refused, unless the limit in the way was configured to make it fit (`clamp`) or wait (`queue`).
3. Taper steps apply to the call that finds their share spent: it is made cheaper, and held anew for its lower cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from gateway.call import Call
from gateway.errors import BudgetExceeded, ClientGone, Forbidden, GatewayError, RunStopped
from gateway.key import Key
from gateway.policy.ceiling import Ceiling, Worst, model_of
from gateway.policy.key_limits import limits_of, owners_above
from gateway.policy.limits import Ask, Limits, Scopes, Told, own_budget
from gateway.policy.passes import models_beside
from gateway.policy.refused import clamped, explain
from gateway.policy.taper import taper
from gateway.policy.usual import usual_key, usual_of
from gateway.ports import Budgets, Downstream, Gateway, Links
from gateway.spend import Charge, Grant, Hold, Refusal, Rule, Unit
from gateway.stages.cheaper import cap, cheaper, note
from gateway.stages.kept import history_tokens, item_tokens
from gateway.stages.settle import charge_of, settled
from gateway.stages.unpack import is_long
from gateway.stages.waiting import waiting

HEADER = b"x-tollgate-budget-usd"
NAMELESS = "This session does not say in its URL which model it will ask (?model=...), and budgets here depend on that."
USD, TOKENS = Unit.USD, Unit.TOKENS
NOTHING = Worst(0, 0, basis="free")
OF_ATTEMPTS = frozenset((USD, TOKENS, Unit.CONCURRENCY))  # not of the call as a whole
TRIES = 4  # clamps of one call
LOOK_SECONDS = 0.25  # while waiting: so often it is looked whether somebody stopped the run
PATIENCE = (b"x-stainless-timeout", b"x-stainless-read-timeout", b"x-server-timeout")  # seconds, as the SDKs say it
SHARE_WAITED = 0.5  # of its patience that a call may spend waiting: its answer takes time, too


class Manner(Struct, frozen=True):
    """How the operator wants what does not fit to be treated; see config.Spending."""

    clamp_floor: int = 256
    queue_seconds: float = 20.0
    stop_overruns: bool = True
    learn: bool = False  # some budget is soft: what calls usually cost is remembered


class Case:
    """One call on its way in: what it may cost, and what is asked for it."""

    __slots__ = ("ask", "at", "call", "clamps", "down", "gw", "more", "op", "told", "until", "worst")

    def __init__(self, call: Call, down: Downstream, gw: Gateway, told: Told, worst: Worst) -> None:
        self.call, self.down, self.gw = call, down, gw
        before = call.hold.op if call.hold is not None else ""  # what is held anew takes the place of what was held
        self.op = before or (f"{call.id}.{len(call.attempts)}" if call.booked else call.id)
        self.more = self.op != call.id  # an attempt of it was charged; the call itself is counted
        self.told, self.worst = told, worst
        self.ask = Ask()
        self.at = call.started_at  # ns since the epoch: whose windows are asked
        self.clamps = 0
        self.until = 0  # monotonic ns: when waiting ends

    def refused(self, refusal: Refusal) -> GatewayError:
        note(self.call, "refused", budget_account=self.ask.demands[refusal.index].account)
        return explain(refusal, self.ask.demands, self.call.started_at)


class Admitter:
    """Implements ports.Admission."""

    def __init__(
        self,
        budgets: Budgets,
        limits: Limits,
        ceiling: Ceiling,
        links: Links,
        manner: Manner,
        *,
        urgency: Callable[[Call], int] = lambda call: 0,
    ) -> None:
        self._budgets = budgets
        self._limits = limits
        self._ceiling = ceiling
        self._links = links
        self._manner = manner
        self._urgency = urgency  # the less the sooner, where several wait
        self.used = not limits.empty  # it has accounts to keep

    def relimit(self, limits: Limits) -> None:
        """From now on these; a call that waits for money asks by them at its next try."""
        self._limits = limits
        self.used = self.used or not limits.empty

    async def admit(self, call: Call, down: Downstream, gw: Gateway) -> None:
        if call.asked.aside or (self._limits.empty and call.key is None and not self._is_limited(call, gw)):
            return
        self.used = True
        case = Case(call, down, gw, self._told(call, gw), await self._worst(call, gw))
        case.ask = self._ask(case)
        if not case.ask.demands:
            return
        grant = await self._granted(case)
        call.hold = hold_of(case, grant, stop_overruns=self._manner.stop_overruns)  # from here on `close` settles it
        if any([terms.taper for terms in case.ask.terms]):
            await self._tapered(case, grant)
        if down.gone:
            raise ClientGone()

    async def admit_hit(self, call: Call, down: Downstream, gw: Gateway) -> None:
        if self._limits.empty and call.key is None:
            return
        self.used = True
        extra = limits_of(call.key) if call.key is not None else ()
        asked = self._limits.demands(scopes_of(call), NOTHING, call.started_at, extra=extra).demands
        demands = tuple([one for one in asked if one.rule is Rule.RATE and one.unit is Unit.CALLS])
        if not demands:
            return
        answer = await self._budgets.reserve(call.id, demands)
        if not isinstance(answer, Grant):
            note(call, "refused", budget_account=demands[answer.index].account)
            raise explain(answer, demands, call.started_at)
        call.hold = Hold(call.id)  # from here on `close` settles it

    def spend(self, call: Call) -> None:
        hold = call.hold
        if hold is not None:
            charge = charge_of(call, hold)
            if charge.usd or charge.tokens:
                self._budgets.settle(hold.op, charge)
                call.hold = None

    async def readmit(self, call: Call, down: Downstream, gw: Gateway, *, moved: bool) -> None:
        if call.hold is not None and not moved:
            return  # the last attempt cost nothing: what was held for it is for the next
        if call.asked.aside or (self._limits.empty and call.key is None and not self._is_limited(call, gw)):
            return
        case = Case(call, down, gw, self._told(call, gw), await self._worst(call, gw))
        case.ask = self._ask(case)
        if case.ask.demands:
            grant = await self._granted(case)
            call.hold = hold_of(case, grant, stop_overruns=self._manner.stop_overruns)

    async def beside(self, call: Call, down: Downstream, gw: Gateway) -> bool:
        if call.asked.aside or (self._limits.empty and call.key is None and not self._is_limited(call, gw)):
            return True
        case = Case(call, down, gw, self._told(call, gw), await self._worst(call, gw))
        case.op, case.more = f"{call.id}.h{len(call.attempts)}", True
        case.ask = self._ask(case)
        if not case.ask.demands:
            return True
        grant = await self._budgets.reserve(case.op, case.ask.demands)
        if not isinstance(grant, Grant):
            return False
        call.hold = hold_of(case, grant, stop_overruns=self._manner.stop_overruns)
        return True

    def release(self, call: Call, *, whole: bool) -> None:
        hold, call.hold = call.hold, None
        if hold is not None:
            charge = charge_of(call, hold)
            self._budgets.settle(
                hold.op, Charge(charge.usd, charge.tokens, 1, hold.tools, hold.steps) if whole else charge
            )

    def settle(self, call: Call) -> None:
        settled(call, self._budgets, self._links, learn=self._manner.learn)

    # -- what is asked --------------------------------------------------------------------------------------------

    def _is_limited(self, call: Call, gw: Gateway) -> bool:
        """Was something set for this call's run, by its client or by a person?"""
        run, controls = call.who.run_id, gw.controls
        if call.route.budget or HEADER in call.request.names:
            return True
        return bool(run) and (controls.limits(run) is not None or controls.raised(run) is not None)

    def _told(self, call: Call, gw: Gateway) -> Told:
        who, header = call.who, stated_budget(call)
        run, usual = who.run_id, None
        if self._manner.learn:
            usual = usual_of(self._links.get(usual_key(who.key_id, call.model_sent or call.asked.model)))
        return Told(
            header=header,
            raised=gw.controls.raised(run) if run else None,
            own=gw.controls.limits(run) if run else None,
            steps=0 if call.asked.calls else 1,
            tools=len(call.tools) + len(call.asked.calls),
            depth=who.depth,
            usual_nano=usual.nano if usual is not None else None,
            usual_tokens=usual.tokens if usual is not None else None,
        )

    async def _worst(self, call: Call, gw: Gateway) -> Worst:
        spec = gw.specs.get(call.route.upstream)
        provider = spec.target.provider if spec is not None else ""
        tool = spec.tool if spec is not None else None
        history, items = history_tokens(call, gw, self._links), item_tokens(call, self._links)
        facts = (call, provider, call.started_at / 1e9, history, tool)
        if is_long(call):
            return await gw.turns.aside(partial(self._ceiling.worst, *facts, known_items=items))
        return self._ceiling.worst(*facts, known_items=items)

    def _ask(self, case: Case) -> Ask:
        call = case.call
        nameless = call.websocket and not model_of(call)
        if nameless and self._limits.of_models:
            note(call, "refused")
            raise BudgetExceeded(NAMELESS, code="price_unknown")
        extra = limits_of(call.key) if call.key is not None else ()
        try:
            ask = self._limits.demands(scopes_of(call), case.worst, case.at, case.told, extra)
        except BudgetExceeded as unpriced:
            note(call, "refused")
            known = call.route.operation and nameless  # a session that may well name a model with a price
            raise (BudgetExceeded(NAMELESS, code=unpriced.code) if known else unpriced) from None
        return of_an_attempt(ask) if case.more else ask

    # -- how it is granted ----------------------------------------------------------------------------------------

    async def _granted(self, case: Case) -> Grant:
        """Hold it, or less of it, or later. Raises what a refusal means."""
        while True:
            answer = await self._budgets.reserve(case.op, case.ask.demands)
            if isinstance(answer, Grant):
                return answer
            manner = case.ask.terms[answer.index].on_exceed
            if manner == "clamp" and case.clamps < TRIES:
                self._clamp(case, answer)
            elif manner == "queue" and (answer.pending or answer.retry_after):
                await self._wait(case, answer)
            else:
                raise case.refused(answer)

    def _clamp(self, case: Case, refusal: Refusal) -> None:
        """Lower the ceiling of the answer to what fits. Raises what the refusal means where that cannot be."""
        case.clamps += 1
        most = clamped(refusal, case.ask.demands, case.worst, self._manner.clamp_floor)
        if most is None or not cap(case.call, case.gw, most):
            raise case.refused(refusal)
        account = case.ask.demands[refusal.index].account
        note(case.call, "clamped", clamped_to=str(most), budget_account=account)
        case.worst = case.worst.lowered(most)
        case.ask = self._ask(case)

    async def _wait(self, case: Case, refusal: Refusal) -> None:
        """Until something is given back, or a person raises the budget. Raises what the refusal means when the time is
        over, or what ends the call."""
        call, down, gw = case.call, case.down, case.gw
        case.until = case.until or gw.monotonic() + int(min(self._manner.queue_seconds, patience_of(call)) * 1e9)
        left = (case.until - gw.monotonic()) / 1e9
        if left <= 0:
            raise case.refused(refusal)
        note(call, "queued", budget_account=case.ask.demands[refusal.index].account)
        told: list[GatewayError] = []
        down.on_gone = told.append
        rank = (self._urgency(call), case.ask.demands[refusal.index].amount)  # the urgent first, of those the cheap
        with waiting(call, gw):
            await self._budgets.freed(min(left, LOOK_SECONDS), rank)
        if down.gone:
            raise ClientGone()
        if told:
            raise told[0]
        why = gw.controls.stopped(call) if gw.controls.stops else None
        if why is not None:
            raise RunStopped(why)
        # a window may have ended meanwhile, and a person raised the budget of the run
        case.at, case.told = gw.now(), self._told(call, gw)
        case.ask = self._ask(case)

    async def _tapered(self, case: Case, grant: Grant) -> None:
        """Make the call cheaper where a share of a budget is spent, and hold it anew."""
        step = taper(grant.levels, [terms.taper for terms in case.ask.terms])
        if step is None:
            return
        call, gw = case.call, case.gw
        label = f"{step.share:g} of {step.account}"
        if step.stop:
            note(call, "refused", taper=label, budget_account=step.account)
            raise BudgetExceeded(f"Calls are stopped here: {label} is spent.")
        note(call, "tapered", taper=label, budget_account=step.account)
        call.lines += f"x-tollgate-taper: {step.share:g}\r\n"
        most = cheaper(call, gw, step.model, step.effort, step.max_tokens)
        case.worst = await self._worst(call, gw)
        if most is not None and most < case.worst.each:
            case.worst = case.worst.lowered(most)
        case.ask = self._ask(case)
        grant = await self._granted(case)
        call.hold = hold_of(case, grant, stop_overruns=self._manner.stop_overruns)


def of_an_attempt(ask: Ask) -> Ask:
    """What each attempt asks for, where the call is counted already."""
    kept = [at for at, demand in enumerate(ask.demands) if demand.unit in OF_ATTEMPTS]
    return Ask(tuple([ask.demands[at] for at in kept]), tuple([ask.terms[at] for at in kept]))


def stated_budget(call: Call) -> int | None:
    """What the client sets for its run, in its URL and in headers, the tightest of it; nano-USD. Raises Forbidden,
    Rejected."""
    stated = [call.route.budget] if call.route.budget else []
    if HEADER in call.request.names:
        stated += [value for name, value in call.request.headers if name.lower() == HEADER and value]
    if not stated:
        return None
    key: Key | None = call.key
    if key is not None and not key.may_limit_runs:
        raise Forbidden("this key may not set a budget for its runs", code="budget_not_allowed")
    return min(map(own_budget, stated))


def patience_of(call: Call) -> float:
    """Seconds that the call may wait here, going by when its client says that it gives up; endless where it does not
    say so."""
    for name in PATIENCE:
        stated = call.request.names.get(name, b"")
        if stated.replace(b".", b"", 1).isdigit():
            return float(stated) * SHARE_WAITED
    return math.inf


def scopes_of(call: Call) -> Scopes:
    who, key = call.who, call.key
    return Scopes(
        who.team or who.tenant,
        (key.name or key.id) if key is not None else "",
        who.agent,
        who.run_id,
        model_of(call),
        call.route.upstream,
        key.id if key is not None else "",
        owners_above(key) if key is not None else (),
        models_beside(call.asked.fields),
    )


def hold_of(case: Case, grant: Grant, *, stop_overruns: bool) -> Hold:
    worst, told = case.worst, case.told
    usd = remaining = run_spent = -1
    spends = False
    for demand, level in zip(case.ask.demands, grant.levels, strict=True):
        if demand.unit is USD:
            left = max(0, level.limit - level.spent - level.reserved)
            remaining = left if remaining < 0 else min(remaining, left)
            usd = max(usd, demand.amount)
            if demand.account.startswith("run:"):
                run_spent = level.spent
        elif demand.unit is TOKENS:
            spends = True
    tokens = worst.tokens_in + worst.tokens_out
    watched = 0  # nothing is cut short where no budget asks for it
    if stop_overruns and (spends or usd >= 0):
        watched = {"configured": worst.tokens_out, "session": tokens}.get(worst.basis, 0)
    held = usd if usd >= 0 else worst.nano_usd or 0
    tools, steps = (0, 0) if case.more else (told.tools, told.steps)
    asked, levels = case.ask.demands, grant.levels
    return Hold(case.op, held, tokens, tools, steps, watched, remaining, run_spent, asked, levels)
