"""What spans say once more in the words of other conventions, for back ends that do not read those of GenAI in full.

`openinference`: kinds, session, the model that answered, tokens and cost, for Arize Phoenix and its like. `mlflow`:
types and cost, which MLflow would otherwise work out from prices of its own. See `telemetry.conventions`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from gateway.call import PICO_USD, ToolCall, Usage
from gateway.journal.record import CallRecord
from gateway.recorder.facts import tidy
from gateway.recorder.names_span import Span

Kind = Literal["AGENT", "CHAIN", "EMBEDDING", "LLM", "TOOL"]
Said = dict[str, str | int | float]

_SIDES = (("input", "cache_read", "cache_write"), ("output", "reasoning"))  # components of the cost of each


class Conventions:
    """`named` are those of the configuration; without any, nothing is said twice."""

    def __init__(self, named: Collection[str] = ()) -> None:
        self._openinference = "openinference" in named
        self._mlflow = "mlflow" in named

    def kind(self, kind: Kind, session: str = "") -> Said:
        """Of any span. `session` as the client stated it."""
        found: Said = {}
        if self._openinference:
            found[Span.KIND] = kind
            if session:
                found[Span.SESSION] = tidy(session)
        if self._mlflow:
            found[Span.MLFLOW_TYPE] = kind
        return found

    def operation(self, r: CallRecord) -> Said:
        """Of the span in which tokens pass."""
        embeds = r.operation == "embeddings"
        found = self.kind("EMBEDDING" if embeds else "LLM", r.conversation_id)
        prompt, completion = (sum(r.cost_components.get(name, 0) for name in side) / PICO_USD for side in _SIDES)
        if self._openinference:
            if model := r.model_used or r.model_requested:
                found[Span.EMBEDDING_MODEL if embeds else Span.LLM_MODEL] = tidy(model)
            if r.usage is not None:
                found |= _tokens(r.usage)
            if r.cost is not None:
                found[Span.LLM_PROMPT_COST] = prompt
                found[Span.LLM_COMPLETION_COST] = completion
                found[Span.LLM_COST] = r.cost / PICO_USD
        if self._mlflow:
            if r.operation == "chat":
                found[Span.MLFLOW_TYPE] = "CHAT_MODEL"
            if r.cost is not None:
                found[Span.MLFLOW_COST] = _mlflow_cost(prompt, completion, r.cost / PICO_USD)
        return found

    def tool(self, tool: ToolCall, session: str) -> Said:
        """Of the execution of a tool; what it cost is part of what a trace cost."""
        found = self.kind("TOOL", session)
        if self._openinference:
            found[Span.OI_TOOL_NAME] = tidy(tool.name)
        if self._mlflow and tool.cost:
            found[Span.MLFLOW_COST] = _mlflow_cost(0.0, 0.0, tool.cost / PICO_USD)
        return found


PLAIN = Conventions()


def _tokens(usage: Usage) -> Said:
    """All of them; those of the cache and of reasoning are parts of prompt and completion."""
    found: Said = {
        Span.LLM_PROMPT: usage.input_tokens,
        Span.LLM_COMPLETION: usage.output_tokens,
        Span.LLM_TOTAL: usage.input_tokens + usage.output_tokens,
    }
    parts = {
        Span.LLM_CACHE_READ: usage.cache_read_tokens,
        Span.LLM_CACHE_WRITE: usage.cache_write_tokens,
        Span.LLM_REASONING: usage.reasoning_tokens,
    }
    return found | {name: count for name, count in parts.items() if count}


def _mlflow_cost(prompt: float, completion: float, total: float) -> str:
    """The JSON that MLflow keeps; US dollars."""
    return msgspec.json.encode({"input_cost": prompt, "output_cost": completion, "total_cost": total}).decode()
