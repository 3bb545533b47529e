"""Who is asking: tenant, agent, run, step and the tools it ran, for every call. Implements `ports.Identity`.

Theory of operation
* What the client says (identity_stated) outranks everything. Where it names no run, the evidence in the request is
  looked up (identity_evidence); where that points nowhere, a new run begins.
* After the answer its traces are left behind: under the response id, the tool-call ids, the history with the answer
  behind it. That is all the state there is, in `Links`, shared by all workers of the machine and bounded.
* A thread is one agent instance within a run. It counts its steps: calls to a model, a retry not counted again.
* Ids and the moment come in: `new_id`, and the call's own clocks. Every key is made with `secret`, tenant and a hash of
  the client's credential, so that no tenant can reach into the runs of another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from zlib import crc32

from gateway.call import Answer, Call, ToolCall, Who
from gateway.config.schema import Identity
from gateway.policy.identity_agents import guess, product_of
from gateway.policy.identity_evidence import (
    LONG_TEXT,
    SHORT_TEXT,
    Evidence,
    Joiner,
    Question,
    idempotency_key,
    request_key,
    response_key,
    text_key,
    tool_key,
    trace_key,
    turn_key,
)
from gateway.policy.identity_history import History, ReadItem, same_prompt, signature_of
from gateway.policy.identity_links import FAILED, REF, SHORT, TICK_BITS, Memory, Thread, digest, ticks
from gateway.policy.identity_stated import StatedReader
from gateway.policy.tools import ToolMemory
from gateway.ports import Links
from gateway.tool import EXECUTE_TOOL

OPEN_LIMIT = 20_000  # calls under way of which this process knows the question
TOOL_IDS = 16  # of one answer
MOST_DEPTH = 255
NOT_STEPS = frozenset(("", "fetch_response", EXECUTE_TOOL))
CONFIDENCE = {"url": 1.0, "header": 1.0, "baggage": 0.97, "vendor": 0.97, "body": 0.95}
SAME_CONVERSATION = frozenset(("previous_response", "tool_call", "prefix"))


class Resolver:
    """`read_item(dialect, raw)` reads one message of a request; `secret` is shared by the workers of the machine.
    `gated`: calls of tools may pass through this gate, too."""

    def __init__(
        self,
        config: Identity,
        links: Links,
        new_id: Callable[[], str],
        secret: bytes,
        read_item: ReadItem,
        *,
        gated: bool = False,
    ) -> None:
        self._stated = StatedReader(config, blake2b(secret, digest_size=32, person=b"tollgate links").digest())
        self._links = links
        self._memory = Memory(links)
        self._tools = ToolMemory(links)
        self._joiner = Joiner(self._memory, int(config.run_idle_seconds * 10**9) >> TICK_BITS)
        self._new_id = new_id
        self._read_item = read_item
        self._gated = gated
        self._open: OrderedDict[str, Question] = OrderedDict()

    def identify(self, call: Call) -> tuple[Who, list[ToolCall]]:
        question = self._question(call)
        stated = question.stated
        who = Who(tenant=stated.tenant)
        evidence = self._find_run(question, call, who)
        self._describe(question, who, evidence)
        if not who.run_id:
            return who, []
        self._enter(question, call, who, evidence)
        while len(self._open) >= OPEN_LIMIT:
            self._open.popitem(last=False)
        self._open[call.id] = question
        results = question.history.results if question.history is not None else []
        if not results:
            return who, []
        tools = self._tools.answered(question.scope, question.ref, results, call.started_at, stated.durations)
        if tools and self._gated:
            tools = self._tools.not_passed(who.tenant, who.run_id, tools, call.started_at)
        return who, tools

    def learn(self, call: Call) -> None:
        question = self._open.pop(call.id, None)
        if call.asked.calls and call.who.run_id:
            self._tools.passed(call.who.tenant, call.who.run_id, [tool for tool in call.tools if tool.server])
        if question is None or not question.counted:
            return
        ended_at = call.started_at + max(0, (call.ended or call.upstream_last_byte or call.began) - call.began)
        if _failed(call):
            key = question.request_key or request_key(question.scope, call)
            self._point(key, question, ticks(ended_at), FAILED)
            self._memory.failed(question.scope, ticks(ended_at))
        answer = call.answer
        if answer is None or answer.error_type:
            return
        if answer.tool_uses:
            self._tools.asked(question.scope, question.ref, answer.tool_uses, ended_at)
        if answer.response_id and "input" in call.asked.fields:
            self._point(response_key(question.scope, answer.response_id), question, ticks(ended_at))
        if question.derived:
            self._leave(question, answer, ticks(ended_at))

    def _question(self, call: Call) -> Question:
        stated = self._stated.read(call)
        asked = call.asked
        history = None
        if asked.messages:
            history = History(call.route.dialect, asked, self._read_item)
        request = call.request
        peer = crc32(request.client.encode(), request.port) & 0xFFFF
        counted = call.route.operation not in NOT_STEPS
        return Question(stated, stated.scope, ticks(call.started_at), peer, history, counted=counted)

    def _find_run(self, question: Question, call: Call, who: Who) -> Evidence | None:
        """Fill the run into `who`; gives the evidence where it was joined, or where the call is a known retry."""
        facts = question.stated.facts
        fact = facts.get("run") or facts.get("trace_run")
        if fact is not None:
            who.run_id, who.run_source, who.run_confidence = fact.value, fact.source, CONFIDENCE[fact.source]
            who.conversation_id = question.stated.value("run")
            if "parent_run" in facts:
                who.run_id = self._root(question, fact.value, facts["parent_run"].value)
            question.ref = thread_ref(question.scope, who.run_id, question.stated.instance)
            return self._joiner.retried(question, call, question.ref)
        question.derived = True
        evidence = self._joiner.join(question, call)
        thread = self._memory.thread(question.scope, evidence.lead.ref) if evidence is not None else None
        if evidence is not None and thread is not None:
            who.run_id, who.run_source, who.run_confidence = thread.run_id, evidence.source, evidence.confidence
            who.agent, question.joined = thread.agent, thread
            return evidence
        if question.counted:
            who.run_id, who.run_source, who.run_confidence = self._new_id(), "new", 0.5
        return None

    def _root(self, question: Question, session: str, parent: str) -> str:
        """A sub-agent with a session of its own belongs to the run of its parent's session, however deep."""
        above = self._links.get(digest(b"%bO%b" % (question.scope, parent.encode())))
        root = above.decode("utf-8", "replace") if above is not None else parent
        self._links.put(digest(b"%bO%b" % (question.scope, session.encode())), root.encode())
        return root

    def _describe(self, question: Question, who: Who, evidence: Evidence | None) -> None:
        """Agent, version, parent, class and end user."""
        stated = question.stated
        prompt = question.history.prompt if question.history is not None else b""
        fact = stated.facts.get("agent")
        inherited = who.agent if evidence is not None and _same_agent(question, evidence) else ""
        name, version = guess(stated.user_agent, prompt)
        sub = stated.subagent
        if fact is not None:
            who.agent, who.agent_source = fact.value, fact.source
        elif sub:
            who.agent, who.agent_source = f"{name}/{stated.value('agent_type') or 'subagent'}"[:63], "vendor"
        elif inherited:
            who.agent, who.agent_source = inherited, "run"
        else:
            who.agent, who.agent_source = name, "guess"
        who.agent_version = stated.agent_version or version
        who.parent_agent = stated.parent_agent
        if sub and not who.parent_agent:
            who.parent_agent = self._parent(question, who.run_id) or product_of(stated.user_agent).name
        if sub and who.run_id:
            who.depth = self._depth(question, who.run_id)
        who.request_class = stated.request_class or ("subagent" if sub else "")
        who.end_user = stated.end_user

    def _parent(self, question: Question, run_id: str) -> str:
        """The name under which the parent of a sub-agent was seen."""
        parent = question.stated.value("parent_agent_id") or question.stated.value("parent_run")
        if not parent:
            return ""
        thread = self._memory.thread(question.scope, thread_ref(question.scope, run_id, parent))
        return thread.agent if thread is not None else ""

    def _depth(self, question: Question, run_id: str) -> int:
        """One more than its parent's, as far as that was seen; remembered for its own sub-agents."""
        stated, scope = question.stated, question.scope
        parent = stated.value("parent_agent_id") or stated.value("parent_run")
        above = self._links.get(depth_key(scope, run_id, parent)) if parent and parent != stated.instance else None
        depth = min(above[0] + 1 if above else 1, MOST_DEPTH)
        key = depth_key(scope, run_id, stated.instance)
        if self._links.get(key) != bytes((depth,)):
            self._links.put(key, bytes((depth,)))
        return depth

    def _enter(self, question: Question, call: Call, who: Who, evidence: Evidence | None) -> None:
        """Find the call's thread, count its step, and leave what the next call needs already now."""
        scope, stated = question.scope, question.stated
        if question.derived:
            instance = stated.instance
            same = not instance and evidence is not None and _same_agent(question, evidence)
            question.ref = evidence.lead.ref if same and evidence else thread_ref(scope, who.run_id, instance)
        if not question.counted:
            who.step = evidence.lead.step if evidence is not None else 0
            return
        thread = self._thread(question, who, evidence)
        if evidence is not None and evidence.same_step and evidence.lead.ref == question.ref:
            who.step = evidence.lead.step
        else:
            thread.steps += 1
            who.step = thread.steps
        question.step = who.step
        thread.agent, thread.at = who.agent, question.at
        self._memory.keep_thread(scope, question.ref, thread)
        if stated.step >= 0:
            who.step = stated.step
        if stated.idempotency_key:
            self._point(idempotency_key(scope, stated.idempotency_key), question, question.at)
        if call.trace.parent_id:
            key = trace_key(scope, call.trace.trace_id)
            if self._links.get(key) is None:
                self._point(key, question, question.at)

    def _thread(self, question: Question, who: Who, evidence: Evidence | None) -> Thread:
        """The call's thread as it was, or a fresh one."""
        if who.run_source == "new":
            return Thread(who.run_id)
        if evidence is not None and question.joined is not None and evidence.lead.ref == question.ref:
            return question.joined
        return self._memory.thread(question.scope, question.ref) or Thread(who.run_id)

    def _point(self, key: bytes, question: Question, at: int, flags: int = 0) -> None:
        """Remember under `key` that it leads to the thread of this question."""
        self._memory.add(key, question.ref, question.lead(at, flags))

    def _leave(self, question: Question, answer: Answer, at: int) -> None:
        """Evidence for the next call of a run that its client does not name."""
        scope, history, ref, add = question.scope, question.history, question.ref, self._memory.add
        lead = question.lead(at)
        for use in answer.tool_uses[:TOOL_IDS]:
            if use.id:
                add(tool_key(scope, use.id), ref, lead)
        if history is None:
            return
        add(turn_key(scope, history, history.count, signature_of(answer)), ref, lead)
        said = len(answer.sample)
        if said >= SHORT_TEXT and answer.text_digest:
            add(text_key(scope, answer.text_digest), ref, lead if said >= LONG_TEXT else question.lead(at, SHORT))


def thread_ref(scope: bytes, run_id: str, instance: str) -> bytes:
    return digest(scope + f"R{run_id}\0{instance}".encode())[:REF]


def depth_key(scope: bytes, run_id: str, instance: str) -> bytes:
    return digest(scope + f"D{run_id}\0{instance}".encode())


def _same_agent(question: Question, evidence: Evidence | None) -> bool:
    """Does the call continue a conversation with the same system prompt, or without one of its own?"""
    if evidence is None or evidence.source not in SAME_CONVERSATION:
        return False
    history = question.history
    return history is None or not history.prompt or same_prompt(history.shape, evidence.lead.shape)


def _failed(call: Call) -> bool:
    """Would a client ask the same again? A refusal for its own fault (4xx) is not repeated but for 408, 409 and 429."""
    if call.status >= 500 or call.status in (0, 408, 409, 429):
        return True
    return call.fault is not None and call.status < 400
