"""What one call adds to the metrics.

Theory of operation: the label values of a call repeat from call to call, so the cells they lead to are looked up once
per combination and kept (`Cells`); a call then costs one lookup and some additions. The combinations are bounded:
when the table is full it is begun anew, and the cells live on in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from msgspec import Struct

from gateway.call import CacheHealth, Outcome, Usage
from gateway.journal.record import CallRecord
from gateway.recorder import metrics_trials
from gateway.recorder.facts import error_type_of, gen_ai_provider, same_model, trace_id_of
from gateway.recorder.metrics_store import Cell, Counter, Family, Histogram, Labels, Store
from gateway.recorder.names import OTHER, TOKEN_TYPES
from gateway.recorder.runs import used
from gateway.tool import EXECUTE_TOOL

COMBINATIONS = 8192
_PRODUCED = frozenset({Outcome.OK, Outcome.TRUNCATED, Outcome.CANCELLED, Outcome.ABANDONED})
_WASTED = frozenset({Outcome.TRUNCATED, Outcome.CANCELLED})
SAVED = {"exact": "exact_cache", "semantic": "semantic_cache", "joined": "single_flight"}
"""What spared the cost of an answer."""
RESULTS = {"exact": "hit", "semantic": "miss"}  # of the exact tier
SIMILAR_NS = "similar_ns"  # see stages.semantic
_MODALITIES = ("text", "image", "audio")


Key = tuple[str | int, ...]


class Models:
    """Which model names may become label values: configured or priced ones; all others are `other`.

    `knows(provider, model)` asks the price data; names that were priced in a record are remembered as well.
    """

    def __init__(self, configured: Collection[str], knows: Callable[[str, str], bool] | None, limit: int) -> None:
        self._known = set(configured)
        self._knows = knows
        self._limit = limit + len(self._known)

    def learn(self, name: str) -> bool:
        """Remember a priced name; True if that is news."""
        if name in self._known or not name or len(self._known) >= self._limit:
            return False
        self._known.add(name)
        return True

    def label(self, provider: str, name: str) -> str:
        if not name:
            return ""
        if name in self._known or (self._knows is not None and self._knows(provider, name)):
            return name
        return OTHER


class Streaming(Struct):
    """Cells of calls whose answer is a stream."""

    first: Histogram
    per_token: Histogram
    chunk: Histogram | None
    server_first: Histogram | None
    server_per_token: Histogram | None


class Operation(Struct):
    """Cells of a GenAI operation that reached an upstream."""

    duration: Histogram
    input: Histogram
    output: Histogram
    labels: Labels
    usage: tuple[Counter, Counter, Counter, Counter, Counter]  # as TOKEN_TYPES; modality unknown


class Cells(Struct):
    """Where calls of one combination of label values are counted."""

    requests: Counter
    duration: Histogram
    identified: Counter
    bytes_in: Counter
    bytes_out: Counter
    once: tuple[Counter, ...]  # error, mismatch, unknown cost, usage source, overflows: one more per call
    provider: str
    model: str  # asked for
    billed: str
    streaming: Streaming | None
    operation: Operation | None
    tokens: tuple[Counter, ...]
    costs: dict[str, Counter]
    wasted: Counter | None


class Calls:
    """Counts calls into a store."""

    def __init__(self, store: Store, models: Models) -> None:
        self._store = store
        self._models = models
        self._cells: dict[Key, Cells] = {}
        self._overhead = store.histograms["tollgate_overhead_seconds"].cell("total")

    def observe(self, r: CallRecord) -> Cells:
        """Constant time; nothing is allocated for a combination that was seen before. Returns where it was counted."""
        key = _key(r)
        cells = self._cells.get(key)
        if cells is None:
            cells = self._open(key, r)
        cells.requests.value += 1
        cells.identified.value += 1
        cells.bytes_in.value += r.request_bytes
        cells.bytes_out.value += r.response_bytes
        for counter in cells.once:
            counter.value += 1
        cells.duration.observe(r.duration_ns)
        self._overhead.observe(r.overhead_ns)
        if cells.streaming is not None and r.ttft_ns >= 0:
            _stream(cells.streaming, r)
        if r.attempts:
            metrics_trials.attempts(self._store, (cells.model, cells.billed), r.attempts)
        if r.notes:
            metrics_trials.notes(self._store, self._models.label, cells.provider, r.notes, r.attempts)
        if r.sdk_retry > 0:
            self._store.add("tollgate_client_retries", (cells.provider,))
        self._money(cells, r)
        if r.prompt_cache is not None:
            self._prompt_cache(r.agent, r.prompt_cache)
        if (waited := r.notes.get(SIMILAR_NS, "")).isdecimal():
            self._store.observe("tollgate_cache_lookup_seconds", ("semantic",), int(waited))
        return cells

    def exemplify(self, r: CallRecord, cells: Cells | None = None) -> None:
        """Make a call that was observed, and where if that is at hand, the exemplar of its buckets."""
        cells = cells or self._cells.get(_key(r))
        if cells is None:  # the table was begun anew since
            return
        trace = (trace_id_of(r), r.span_id, r.started_at + r.duration_ns)
        cells.duration.exemplify(r.duration_ns, trace)
        self._overhead.exemplify(r.overhead_ns, trace)
        if cells.streaming is not None and r.ttft_ns >= 0:
            cells.streaming.first.exemplify(r.ttft_ns, trace)

    def _prompt_cache(self, agent: str, health: CacheHealth) -> None:
        add = self._store.add
        for kind, tokens in (("input", health.input), ("readable", health.readable), ("read", health.read)):
            add("tollgate_prompt_cache_tokens", (agent, kind), tokens)
        if health.lost_tokens:
            add("tollgate_prompt_cache_lost_tokens", (agent, health.cause), health.lost_tokens)
        if health.lost:
            add("tollgate_prompt_cache_lost_usd", (agent, health.cause), health.lost)
        if health.part:
            add("tollgate_prompt_cache_churn", (agent, health.part))

    def _money(self, cells: Cells, r: CallRecord) -> None:
        usage, operation = used(r), cells.operation
        if operation is not None:
            operation.duration.observe(max(0, r.duration_ns - r.attempts[0].offset_ns))
            if usage is not None:
                operation.input.observe(usage.input_tokens)
                operation.output.observe(usage.output_tokens)
        if usage is not None:
            counted = _counts(usage)
            for counter, tokens in zip(cells.tokens, counted, strict=True):
                counter.value += tokens
            if operation is not None:
                self._usage(operation, usage, counted)
        if r.cost:
            self._cost(cells, r, r.cost)
            if r.cache_reason == "shadow":
                self._store.add("tollgate_cache_shadow_cost_usd", (), r.cost)
        if r.saved > 0 and r.cache in SAVED:
            reason = SAVED[r.cache] if r.operation != EXECUTE_TOOL else "tool_cache"
            self._store.add("tollgate_cost_saved_usd", (reason,), r.saved)

    def _usage(self, operation: Operation, usage: Usage, counted: tuple[int, ...]) -> None:
        for counter, tokens in zip(operation.usage, counted, strict=True):
            counter.value += tokens
        if usage.detail:
            for index, direction in enumerate(("input", "output")):
                self._modalities(operation, usage.detail, direction, index, counted[index])

    def _modalities(
        self, operation: Operation, detail: Mapping[str, float], direction: str, index: int, rest: int
    ) -> None:
        """Move what the provider counted by modality away from `unknown`."""
        for modality in _MODALITIES:
            tokens = int(max(0, min(rest, detail.get(f"{direction}_{modality}_tokens", 0))))
            if tokens > 0:
                name = f"gen_ai_client_inference_usage_{direction}_tokens"
                self._store.add(name, (*operation.labels, modality), tokens)
                operation.usage[index].value -= tokens
                rest -= tokens

    def _cost(self, cells: Cells, r: CallRecord, cost: int) -> None:
        rest = cost
        for component, part in r.cost_components.items():
            if part > 0:
                self._cost_cell(cells, r, component).value += part
                rest -= part
        if rest > 0:
            self._cost_cell(cells, r, "other").value += rest
        if cells.wasted is not None:
            cells.wasted.value += cost

    def _cost_cell(self, cells: Cells, r: CallRecord, component: str) -> Counter:
        found = cells.costs.get(component)
        if found is None:
            estimated = "true" if r.usage_source == "estimated" else "false"
            labels = (cells.provider, cells.billed, r.tenant, r.agent, component, estimated)
            found, over = self._store.counters["tollgate_cost_usd"].place(labels)
            if not cells.costs:  # from now on with every call of this combination, this one included
                overflows = tuple(self._store.overflow("tollgate_cost_usd", label) for label in over)
                for counter in overflows:
                    counter.value += 1
                cells.once += overflows
            cells.costs[component] = found
        return found

    def _open(self, key: Key, r: CallRecord) -> Cells:
        if r.cost_status == "priced" and (self._models.learn(r.model_used) | self._models.learn(r.model_requested)):
            self._cells.clear()  # combinations of this model were counted under `other`
        if len(self._cells) >= COMBINATIONS:
            self._cells.clear()
        cells = self._cells[key] = _Opening(self._store, self._models, r).cells()
        return cells


def _key(r: CallRecord) -> Key:
    """All that the labels of a call depend on."""
    last = r.attempts[-1] if r.attempts else None
    return (
        r.route, r.provider, r.upstream, r.model_requested, r.model_used, r.status, r.outcome, r.stream, r.tenant,
        r.agent, r.operation, r.error_code, r.error_type, r.usage_source, r.cost_status, r.run_source,
        last.address if last is not None else "", last.port if last is not None else 0, r.usage is None,
        r.budget, r.cache, r.notes.get("similar", ""), SIMILAR_NS in r.notes, r.notes.get("loop", ""),
        r.notes.get("loop_action", ""),
    )  # fmt: skip


def _stream(cells: Streaming, r: CallRecord) -> None:
    cells.first.observe(r.ttft_ns)
    if cells.chunk is not None and cells.server_first is not None:
        cells.chunk.observe(r.ttft_ns)
        cells.server_first.observe(r.ttft_ns)
    tokens = r.usage.output_tokens if r.usage is not None else 0
    if tokens > 1:
        per_token = max(0, r.duration_ns - r.ttft_ns) // (tokens - 1)
        cells.per_token.observe(per_token)
        if cells.server_per_token is not None:
            cells.server_per_token.observe(per_token)


def _counts(usage: Usage) -> tuple[int, int, int, int, int]:
    """As TOKEN_TYPES."""
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )


class _Opening:
    """Finds the cells of a combination; notes what overflowed."""

    def __init__(self, store: Store, models: Models, r: CallRecord) -> None:
        self.store, self.r = store, r
        self.last = r.attempts[-1] if r.attempts else None
        self.once: list[Counter] = []
        self.provider = r.provider or r.upstream
        self.model = models.label(r.provider, r.model_requested or r.model_used)
        used = models.label(r.provider, r.model_used)
        self.mismatch = not same_model(r.model_requested, r.model_used)
        self.response_model = used
        self.billed = used if self.mismatch else self.model
        self.error = error_type_of(r)
        self.is_model = r.operation not in ("", EXECUTE_TOOL)

    def counter(self, name: str, *labels: str) -> Counter:
        return self._place(self.store.counters[name], labels)

    def histogram(self, name: str, *labels: str) -> Histogram:
        return self._place(self.store.histograms[name], labels)

    def _place(self, family: Family[Cell], labels: Labels) -> Cell:
        cell, over = family.place(labels)
        self.once += [self.store.overflow(family.metric.name, label) for label in over]
        return cell

    def cells(self) -> Cells:
        r, provider = self.r, self.provider
        self._once()
        wasted = None
        if r.outcome in _WASTED:
            wasted = self.counter("tollgate_cost_wasted_usd", provider, self.billed, r.outcome)
        tenant, stream = r.tenant, "true" if r.stream else "false"
        return Cells(
            requests=self.counter("tollgate_requests", r.route, provider, self.model, r.outcome, str(r.status)),
            duration=self.histogram("tollgate_request_duration_seconds", r.route, provider, self.model, stream),
            identified=self.counter("tollgate_calls_identified", r.run_source),
            bytes_in=self.counter("tollgate_request_bytes", r.route),
            bytes_out=self.counter("tollgate_response_bytes", r.route),
            provider=provider,
            model=self.model,
            billed=self.billed,
            operation=self._operation() if self.is_model and self.last is not None else None,
            streaming=self._streaming() if r.stream and r.status < 400 else None,
            tokens=tuple(
                [self.counter("tollgate_tokens", provider, self.billed, kind, tenant) for kind in TOKEN_TYPES]
                if used(r) is not None
                else ()
            ),
            costs={},
            wasted=wasted,
            once=tuple(self.once),
        )

    def _once(self) -> None:
        r, provider = self.r, self.provider
        if self.error:
            self.once.append(self.counter("tollgate_errors", self.error, provider))
        if self.mismatch:
            self.once.append(self.counter("tollgate_model_mismatch", provider, self.model, self.response_model))
        if self.is_model and r.usage_source != "none":
            self.once.append(self.counter("tollgate_usage_source", provider, r.usage_source))
        if r.outcome == Outcome.REFUSED:
            self.once.append(self.counter("tollgate_rejected", r.error_code))
        if r.cache:
            tier = "exact" if r.operation != EXECUTE_TOOL else "tool"
            self.once.append(self.counter("tollgate_cache_lookups", tier, RESULTS.get(r.cache, r.cache)))
        if similar := r.notes.get("similar"):
            asked = "hit" if similar == "hit" else "miss" if SIMILAR_NS in r.notes else "bypass"
            self.once.append(self.counter("tollgate_cache_lookups", "semantic", asked))
            self.once.append(self.counter("tollgate_cache_similar", similar))
        if r.budget:
            self.once.append(self.counter("tollgate_budget_decisions", r.budget))
        for signal in r.notes.get("loop", "").split(",") if "loop" in r.notes else ():
            self.once.append(self.counter("tollgate_loop_signals", signal, r.notes.get("loop_action", "note")))
        if r.cost_status == "no_price" or (r.cost_status == "no_usage" and r.operation and r.outcome in _PRODUCED):
            self.once.append(self.counter("tollgate_cost_unknown", r.cost_status, provider))

    def _labels(self) -> Labels:
        r, last = self.r, self.last
        assert last is not None
        model = self.model or self.response_model
        return (r.operation, gen_ai_provider(r), model, self.response_model, last.address, str(last.port))

    def _operation(self) -> Operation:
        labels = (*self._labels(), self.error)
        prefix = "gen_ai_client_inference_usage_"
        return Operation(
            self.histogram("gen_ai_client_operation_duration_seconds", *labels),
            self.histogram("gen_ai_client_token_usage", *labels, "input"),
            self.histogram("gen_ai_client_token_usage", *labels, "output"),
            labels,
            (
                self.counter(f"{prefix}input_tokens", *labels, "unknown"),
                self.counter(f"{prefix}output_tokens", *labels, "unknown"),
                self.counter(f"{prefix}cache_read_input_tokens", *labels, "unknown"),
                self.counter(f"{prefix}cache_write_input_tokens", *labels, "unknown"),
                self.counter(f"{prefix}reasoning_output_tokens", *labels, "unknown"),
            ),
        )

    def _streaming(self) -> Streaming:
        first = self.histogram("tollgate_time_to_first_token_seconds", self.provider, self.model)
        per_token = self.histogram("tollgate_time_per_output_token_seconds", self.provider, self.model)
        if not self.is_model or self.last is None:
            return Streaming(first, per_token, None, None, None)
        labels = self._labels()
        return Streaming(
            first,
            per_token,
            self.histogram("gen_ai_client_operation_time_to_first_chunk_seconds", *labels),
            self.histogram("gen_ai_server_time_to_first_token_seconds", *labels),
            self.histogram("gen_ai_server_time_per_output_token_seconds", *labels),
        )
