"""The worst case of a call: the most it may use and cost, told before it goes.

Rules
1. Input: `policy.token_bound` of what the request holds, what hosted tools may bring (`policy.hosted_tools`), and the
   history that it only refers to: as many tokens as the caller remembers of that chain, else the model's context; which
   counts for files that it refers to, too.
2. Output: the largest limit that the client states, else the model's own, else the configured ceiling; for each answer
   asked for (n, best_of, candidateCount, each of several prompts). Only a limit of the client's is a hard one:
   otherwise `estimated` is set.
3. Price: the dearest that may apply. Input as fresh, written to a cache, or recording; output as text, reasoning,
   recording or picture where asked for; the tier of long contexts that the bound reaches; service tier and speed as
   asked for or as by default; of several models that may answer the dearest.
4. A WebSocket has no worst case: each session is held to one answer of the largest size; what it takes beyond that is
   for whoever watches it. One of unknown meaning, whose messages nobody can read, has no known price.
5. What needs no tokens asks for no money. What makes or changes something of unknown meaning, or starts a batch, has no
   known price; nor has a request that asks to be taken for one of another method.
6. A call of a tool behind this gate costs what its operator says; see policy.tool_price.

Cost: about 4 us, and that of the input bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from msgspec import Raw, Struct

from gateway.call import Asked, Call
from gateway.policy.asked_facts import (
    LIMITS,
    choices_of,
    context_of,
    continues_thread,
    keeps_for_an_hour,
    looks_closely,
    media_of,
    output_limit,
    refers,
    whole,
)
from gateway.policy.free_requests import is_free
from gateway.policy.hosted_tools import NONE, USES, Hosted, by_itself, hosted_tools, of_stored_prompt
from gateway.policy.inline_tools import inline_tools
from gateway.policy.model_limits import most
from gateway.policy.passes import ONCE, Passes, models_beside, passes_of
from gateway.policy.rerank_bound import searches
from gateway.policy.token_bound import AUDIO, HOUR, INLINE, LINKED, PICTURES, STORED, TOKENS, Pieces, around, text_bound
from gateway.policy.tool_price import held
from gateway.policy.worst_rates import Features, WorstRates
from gateway.ports import Prices
from gateway.spend import PICO_PER_NANO
from gateway.tool import Terms

BARE = frozenset({"embeddings", "text_completion", "rerank", "moderation"})
RERANK = "rerank"
NO_OUTPUT = frozenset({"embeddings", "rerank", "moderation"})
# Where a dialect read no messages.
CONTENT = ("input", "prompt", "content", "requests", "texts", "inputs", "query", "documents")
SOURCES = {  # fields that a dialect reads its messages from: the first that is there
    "openai_chat": ("messages", "prompt"), "openai_completions": ("messages", "prompt"), "openai_responses": ("input",),
    "anthropic": ("messages",), "gemini": ("contents", "content"),
    "bedrock_converse": ("messages",), "bedrock_invoke": ("messages",),
    "cohere": ("messages", "chat_history", "message", "prompt"), "ollama": ("messages", "prompt", "input"),
}  # fmt: skip
LIMITED_BY = {"bedrock_converse": (), "ollama": ()}  # top-level fields that a dialect takes for a limit
UNSEEN: Mapping[str, int] = {"ollama": 2_000}  # tokens of what a server says before a request by itself: a Modelfile
READ = frozenset({"system", "instructions", "systemInstruction", "system_instruction", "preamble", "tools", "functions",
                  *CONTENT, "messages", "contents"})  # what a dialect may read as pieces  # fmt: skip
HISTORIES = ("previous_response_id", "conversation", "conversation_id", "cachedContent", "cached_content")
DEPLOYMENTS = b"/deployments/"
SMALL = 48  # bytes of a field that can hold no prompt
HISTORY = 200_000
TOOL_LISTS = 256  # remembered
ROUTED = 1_000  # what other models say before a prompt, where a router may take one of them
SESSION_MEDIA = ("audio",)
EXECUTION = "execution"  # of a tool: it has no tokens
STORED_PROMPT = 50_000  # a prompt that the provider keeps


class Worst(Struct, frozen=True, gc=False):
    """The most a call may use. `nano_usd` is None where its price is unknown.

    `base_pico` is what it costs at most before a token of its answers is made, `each_pico` what each of those does.
    """

    tokens_in: int = 0
    tokens_out: int = 0  # of all answers together
    nano_usd: int | None = 0
    estimated: bool = False  # the client set no limit of the output: it may be more
    basis: str = "free"  # what limits the output: client, model, configured; or session, execution, free, unknown
    each: int = 0  # tokens of one answer
    choices: int = 1
    base_pico: int = 0
    each_pico: int = 0

    def lowered(self, max_tokens: int) -> Worst:
        """The same call, told to make at most so many tokens for each answer."""
        out = self.tokens_out + (max_tokens - self.each) * self.choices
        nano = None if self.nano_usd is None else self.nano_at(max_tokens)
        return Worst(
            self.tokens_in, out, nano, False, "client", max_tokens, self.choices, self.base_pico, self.each_pico
        )

    def nano_at(self, max_tokens: int) -> int:
        """What it costs at most with so many tokens for each answer."""
        return nano_of(self.base_pico + self.each_pico * self.choices * max_tokens)


FREE = Worst()


def nano_of(pico: int) -> int:
    """Rounded up: what is asked for is never less than what is charged."""
    return -(-pico // PICO_PER_NANO)


class Ceiling:
    """Worst cases by one price table. One per configuration; `pieces` may be shared by all of a process.

    `output`: tokens of an answer that nothing limits; `history`: of a conversation that is referred to but unknown, for
    models without a known context; `uses`: of a hosted tool that states no limit.
    """

    def __init__(
        self,
        prices: Prices,
        *,
        output: int = 32_768,
        history: int = HISTORY,
        uses: int = USES,
        pieces: Pieces | None = None,
    ) -> None:
        self._rates = WorstRates(prices)
        self._output = output
        self._history = history
        self._uses = uses
        self._pieces = pieces or Pieces()
        self._hosted: dict[int, Hosted] = {}

    def worst(
        self,
        call: Call,
        provider: str,
        at: float,
        known_history: int | None = None,
        tool: Terms | None = None,
        *,
        known_items: tuple[int, int] | None = None,
    ) -> Worst:
        """`provider` is that of the upstream it goes to, `at` its time in epoch seconds. `known_history`: tokens of the
        response chain or conversation it continues, input and output, where the caller remembers them; `known_items`:
        how many single items it refers to, and their tokens. `tool`: the terms of the tool it goes to. Never raises.
        """
        asked, route = call.asked, call.route
        if asked.gated:
            if tool is None or not asked.calls:
                return FREE
            return Worst(nano_usd=nano_of(held(tool, asked.calls)), basis=EXECUTION)
        if call.websocket and route.operation:
            return self._session(call, provider, at)
        if call.websocket:
            return Worst(nano_usd=None, estimated=True, basis="unknown")
        if not route.operation or route.operation == "fetch_response":
            return FREE if is_free(call, provider) else Worst(nano_usd=None, estimated=True, basis="unknown")
        model = model_of(call)
        total = self._own(asked, model, call.request.body, route.dialect, route.operation in BARE)
        hosted = self._tools(asked, model, inline=total % LINKED >= INLINE)
        count, items = known_items or (0, 0)
        known = items if count == total % INLINE // STORED and total < LINKED else None
        tokens = (total & TOKENS) + self._kept(asked, model, known_history, known)
        if hosted is not NONE:
            tokens = hosted.tokens(tokens)
        each, basis = (0, "client") if route.operation in NO_OUTPUT else self._limit(asked, model, route.dialect)
        choices, passes = choices_of(asked, route.operation), passes_of(asked.fields, tokens)
        if passes is not ONCE:
            tokens, each, choices = passes.tokens(tokens), max(each, passes.longest), choices * passes.tries
        worst = Worst(tokens, 0, None, basis != "client", basis, each, choices)
        if route.operation == RERANK and (search := self._rates.search(provider, model, at)) is not None:
            base = search * searches(asked.fields, tokens)
            return Worst(tokens, 0, nano_of(base), basis=basis, base_pico=base)
        return self._priced(call, provider, at, worst, (total, hosted, passes))

    def tokens_in(self, asked: Asked, model: str, body: bytes, dialect: str, *, bare: bool = False) -> int:
        """The bound of the input by what the request itself holds; `bare`: its text goes without a template."""
        return self._own(asked, model, body, dialect, bare) & TOKENS

    def _own(self, asked: Asked, model: str, body: bytes, dialect: str, bare: bool) -> int:
        """With the flags of its pieces."""
        fields = asked.fields
        if not fields:
            return len(body)
        parts = asked.messages or [fields[key] for key in CONTENT if key in fields]
        pieces = [*parts]
        if asked.system:
            pieces.append(asked.system)
        declares = len(asked.tools) > 4  # more than null
        if declares:
            pieces.append(asked.tools)
        unread, more = rest_of(asked, dialect)
        total = self._pieces.total(pieces + unread, model, closely=looks_closely(asked)) + more
        constants = around(model)
        declares = declares or total % LINKED >= INLINE
        total += constants.message * len(parts)
        if bare:
            return total
        return total + constants.request + (constants.tools if declares else 0) + UNSEEN.get(dialect, 0)

    def _kept(self, asked: Asked, model: str, known: int | None, items: int | None) -> int:
        """What the request only refers to, for it is kept elsewhere. None: nothing is known of it, so that it may be as
        much as the model reads."""
        history = known if refers(asked, HISTORIES) or continues_thread(asked) else 0
        if history is None or items is None:
            limits = most(model)
            total = limits.context if limits else self._history
        else:
            total = history + items
        return total + STORED_PROMPT if has_stored_prompt(asked) else total

    def _tools(self, asked: Asked, model: str, *, inline: bool) -> Hosted:
        found = NONE
        if len(asked.tools) > 4:
            key = hash(asked.tools)
            known = self._hosted.get(key)
            if known is None:
                if len(self._hosted) >= TOOL_LISTS:
                    self._hosted.clear()
                known = self._hosted[key] = hosted_tools(asked.tools, self._uses)
            found = known
        if inline:
            found += hosted_tools(inline_tools(asked.messages), self._uses)
        if has_stored_prompt(asked):
            found += of_stored_prompt(self._uses)
        if extra := by_itself(model, asked.fields, self._uses):
            found += Hosted(extra)
        if found.uses and "max_tool_calls" in asked.fields:
            stated = whole(asked.fields["max_tool_calls"])
            found = found if stated is None else found.at_most(stated)
        return found

    def _limit(self, asked: Asked, model: str, dialect: str) -> tuple[int, str]:
        """Tokens of each answer, and what limits them."""
        stated = output_limit(asked, LIMITED_BY.get(dialect, LIMITS))
        if stated is not None:
            return stated, "client"
        known = most(model)
        return (known.output, "model") if known else (self._output, "configured")

    def _session(self, call: Call, provider: str, at: float) -> Worst:
        known = most(model_of(call))
        context, output = (known.context, known.output) if known else (self._history, self._output)
        return self._priced(call, provider, at, Worst(context, 0, None, True, "session", output), (AUDIO, NONE, ONCE))

    def _priced(self, call: Call, provider: str, at: float, worst: Worst, more: tuple[int, Hosted, Passes]) -> Worst:
        flags, hosted, passes = more
        asked = call.asked
        beside = text_bound(bytes(asked.fields["prediction"])) if "prediction" in asked.fields else 0
        beside += passes.summary * passes.tries
        out = worst.each * worst.choices + beside  # what is guessed wrong is billed beside the answer
        models = (model_of(call), *hosted.models, *models_beside(asked.fields))
        media = media_of(asked) if worst.basis != "session" else SESSION_MEDIA
        hour = flags % STORED >= HOUR or keeps_for_an_hour(asked)
        features = Features(hour, flags % HOUR >= AUDIO, media, context_of(asked))
        rates = self._rates.of(provider, models, worst.tokens_in, at, features)
        nano, base, each = None, 0, 0
        if rates is not None:
            base = rates.fixed + rates.input * worst.tokens_in + rates.use * hosted.uses + rates.output * beside
            base += hosted.beside
            each = rates.output
            nano = nano_of(base + each * worst.each * worst.choices)
        return Worst(
            worst.tokens_in, out, nano, worst.estimated, worst.basis, worst.each, worst.choices, base, each
        )  # fmt: skip


def has_stored_prompt(asked: Asked) -> bool:
    """Does it name a prompt that the provider keeps?"""
    return "prompt" in asked.fields and bytes(asked.fields["prompt"])[:1] == b"{"


def rest_of(asked: Asked, dialect: str) -> tuple[list[Raw], int]:
    """What a request holds beside what its dialect reads: fields that another one would read, for its upstream may read
    both, and tokens of all else that may be shown to the model: schemas, documents, and whatever it is."""
    fields = asked.fields
    sources: tuple[str, ...] = CONTENT
    if asked.messages:
        sources = tuple([key for key in SOURCES.get(dialect, ()) if key in fields][:1])
    unread, more = [], 0
    for key, raw in fields.items():
        if len(raw) <= SMALL or key == "model" or key in sources:
            continue
        if key == "toolConfig" and asked.tools in bytes(raw):
            more += len(raw) - len(asked.tools)
        elif key == PICTURES:
            unread.append(Raw(b'{"%b":%b}' % (PICTURES.encode(), bytes(raw))))
        elif key not in READ:
            more += text_bound(bytes(raw))
        elif not (is_same(raw, asked.system) or is_same(raw, asked.tools)):
            unread.append(raw)
    if "models" in fields or "provider" in fields:
        more += ROUTED
    return unread, more


def is_same(raw: Raw, text: bytes) -> bool:
    return len(raw) == len(text) and bytes(raw) == text


def model_of(call: Call) -> str:
    """The model that is asked; where the body names none, the one of a session or the deployment that the path does."""
    model = call.model_sent or call.asked.model
    if not model and call.websocket:
        return next(iter(parse_qs(call.route.path.partition(b"?")[2]).get(b"model", ())), b"").decode("latin-1")
    if not model and DEPLOYMENTS in call.route.path:
        model = call.route.path.partition(DEPLOYMENTS)[2].partition(b"/")[0].decode("latin-1")
    return model
