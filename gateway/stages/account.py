"""Account: what a call used and what that cost, each figure with its source. Pure but for the ports it asks."""

from __future__ import annotations

from gateway.call import Answer, Call, Money, Usage, UsageSource
from gateway.errors import ClientGone
from gateway.policy.free_requests import is_free
from gateway.policy.tool_price import executions, money_of
from gateway.ports import Gateway, Meter

FREE = Money(total=0, status="free")
UNKNOWN = Money(total=None, status="no_usage")
NO_PRICE = Money(status="no_price")
UNSETTLED = b"background:"
FAILED, HEDGED = "failed_attempts", "hedged_attempts"
GAVE_UP = frozenset(("upstream_first_byte_timeout", "upstream_total_timeout", "draining", "run_stopped", "overtaken"))


def account(call: Call, meter: Meter | None, gw: Gateway, *, whole: bool = False, cut: bool = False) -> None:
    """Fill in `call.answer` and `call.money`, once. `whole`: the body ended where its framing said, and nothing more
    can be asked of it (it is no stream, or cannot be decoded). `cut`: it did not, whatever it is."""
    if call.answer is not None:
        return
    count(call, meter, gw, whole=whole, cut=cut)
    if call.spent is not None:
        call.money = added(call.money, call.spent)


def count(call: Call, meter: Meter | None, gw: Gateway, *, whole: bool, cut: bool) -> None:
    """The same of the last attempt alone."""
    answer = meter.end() if meter is not None else Answer(complete=False)
    answer.complete = (answer.complete and not cut) or whole
    call.answer = answer
    if call.booked == len(call.attempts) and call.booked:
        call.money = FREE  # none since the one that was counted before
        return
    if call.asked.gated:
        charge_tools(call, gw)
        return
    if answer.usage is not None and answer.usage_source is not UsageSource.ESTIMATED:
        answer.usage_source = UsageSource.INJECTED if call.asked.injected else UsageSource.PROVIDER
    elif may_be_billed(call, answer):
        answer.usage = gw.estimator.estimate(call, answer)
        answer.usage_source = UsageSource.ESTIMATED
    call.money = price(call, answer, gw) if is_ours_to_charge(call, answer, gw) else FREE


def charge_tools(call: Call, gw: Gateway) -> None:
    """The call makes tools do something: note what became of each, and what that costs by the operator's word."""
    spec = gw.specs.get(call.route.upstream)
    if spec is None or spec.tool is None or not any([attempt.sent for attempt in call.attempts[call.booked :]]):
        call.money = FREE
        return
    made = executions(call, spec.tool)
    call.tools = [*call.tools, *made]
    call.money = money_of(made)


def may_be_billed(call: Call, answer: Answer) -> bool:
    """Did the upstream work for this call, so that the provider will charge for it though it did not say how much?

    Yes for answers without usage, for cut ones, and where the client or our patience left before the answer came.
    Not when nothing was sent, when the upstream broke off before it answered, when the answer is an error or a
    redirect, will come later (background), or is not an answer of this API at all (a proxy's HTML page).
    """
    if call.route.operation in ("", "fetch_response") or not call.attempts or call.websocket or answer.background:
        return False
    last = call.attempts[-1]
    if last.status == 0:
        return last.sent and (isinstance(last.fault, ClientGone) or getattr(last.fault, "code", "") in GAVE_UP)
    if not 200 <= last.status < 300 or last.status == 204 or (answer.error_type and not answer.output_chars):
        return False
    if call.route.operation == "embeddings":
        return True  # vectors are not read, and those of Gemini come without the name of a model
    return not answer.complete or bool(answer.model or answer.response_id or answer.output_chars)


def is_ours_to_charge(call: Call, answer: Answer, gw: Gateway) -> bool:
    """False where the tokens of this answer were, or will be, charged to another call: fetched responses."""
    if call.route.operation != "fetch_response":
        if answer.response_id and answer.background:
            gw.links.put(UNSETTLED + answer.response_id.encode(), b"1")
        return True
    key = UNSETTLED + answer.response_id.encode()
    if answer.usage is None or not gw.links.get(key):
        answer.usage, answer.usage_source = None, UsageSource.NONE
        return False
    gw.links.put(key, b"")
    return True


def price(call: Call, answer: Answer, gw: Gateway) -> Money:
    """The cost of an answer and of the parts billed apart. Unknown in any part is unknown in the whole."""
    if not call.attempts or (answer.usage is None and not answer.parts):
        return FREE if costs_nothing(call) else UNKNOWN
    at = call.started_at / 1e9
    provider = call.attempts[-1].target.provider
    models = (answer.model, call.model_sent or call.asked.model)
    money = UNKNOWN
    if answer.usage is not None:
        money = priced(gw, provider, models, (answer.usage, answer.pricing), at)
    for usage, model, context in answer.parts:
        part = priced(gw, provider, (model, *models), (usage, context), at)
        money = part if money is UNKNOWN and answer.usage is None else added(money, part)
    return money


def costs_nothing(call: Call) -> bool:
    """Calls that no provider charges for: errors, reads, token counts, sessions in which nobody asked; not what makes
    something of unknown meaning."""
    sent = bool(call.attempts)
    if not sent or call.attempts[-1].status >= 400 or call.attempts[-1].status == 0:
        return True
    if call.websocket and call.route.operation:  # a session in which nothing was asked for
        return call.answer is not None and not call.answer.pending
    return not call.route.operation and is_free(call, call.attempts[-1].target.provider)


def priced(gw: Gateway, provider: str, models: tuple[str, ...], used: tuple[Usage, dict[str, str]], at: float) -> Money:
    """By the model that answered; by the one asked for where the answer names none that has a price."""
    money = NO_PRICE
    for model in models:
        if model:
            money = gw.prices.price(provider, model, used[0], at, used[1])
            if money.total is not None:
                break
    return money


def added(left: Money, right: Money) -> Money:
    if left.total is None or right.total is None:
        return Money(None, {}, left.version or right.version, left.status if left.total is None else right.status)
    components = dict(left.components)
    for name, amount in right.components.items():
        components[name] = components.get(name, 0) + amount
    return Money(left.total + right.total, components, left.version, "priced")


def without(whole: Money, part: Money) -> Money:
    """What `added` made of another sum and this part."""
    if whole.total is None or part.total is None:
        return whole
    components = {name: amount - part.components.get(name, 0) for name, amount in whole.components.items()}
    return Money(
        whole.total - part.total,
        {name: amount for name, amount in components.items() if amount},
        whole.version,
        whole.status,
    )


def book_beside(lost: Call, call: Call, gw: Gateway, *, whole: bool) -> None:
    """An attempt beside the one that answers is over: what it cost is the call's. `lost`: the call as that attempt had
    it; `whole`: it holds for the call as such, not for an attempt alone."""
    account(lost, lost.meter, gw, cut=True)
    own = noted(lost) if len(lost.attempts) > lost.booked else FREE
    if gw.admission is not None:
        gw.admission.release(lost, whole=whole)
    call.spent = summed(call.spent, own, HEDGED)


def noted(call: Call) -> Money:
    """What its last attempt used and cost, noted with that."""
    this, answer = call.attempts[-1], call.answer
    this.cost = call.money.total
    if answer is not None:
        this.usage, this.usage_source = answer.usage, str(answer.usage_source)
    return call.money


def summed(spent: Money | None, own: Money, name: str) -> Money | None:
    if own.total:
        own = Money(own.total, {name: own.total}, own.version, own.status)
    if spent is None:
        return own if own.total != 0 else None
    return added(spent, own)


def book(call: Call, gw: Gateway) -> None:
    """An attempt is over, and another follows: what it cost is the call's, and what it brought is nobody's. Its money
    stands under one name of its own, so that the others are the tokens of the answer times their price."""
    spent, call.spent = call.spent, None
    if call.answer is not None and spent is not None:  # it came to its end, and was counted with those before it
        call.money = without(call.money, spent)
    account(call, call.meter, gw, cut=True)
    own = noted(call)
    if gw.admission is not None:
        gw.admission.spend(call)
    call.spent = summed(spent, own, FAILED)
    call.booked = len(call.attempts)
    call.answer, call.money, call.meter = None, Money(), None
    call.response_bytes = call.upstream_first_byte = call.upstream_last_byte = 0
    call.captured, call.stated = b"", {}
