"""Whatever no other dialect reads: relayed and recorded without tokens. Errors are worded as OpenAI does.

A streamed answer counts as complete when the connection ends properly: nothing is known of its events.
"""

from __future__ import annotations

from gateway.call import Asked, Request, Route
from gateway.dialects import faults
from gateway.dialects.meters import OpaqueMeter
from gateway.dialects.openai_chat import OpenAIFamily
from gateway.errors import GatewayError
from gateway.ports import ErrorAnswer, Meter


class Opaque(OpenAIFamily):
    """`words` tells the errors of another family where the operator says so: "openai", "anthropic" or "gemini"."""

    name = "opaque"

    def __init__(self, words: str = "openai") -> None:
        self._words = words

    def question(self, route: Route, request: Request) -> Asked:
        return Asked()

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
        return OpaqueMeter(asked, status)

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        if self._words == "anthropic":
            return faults.anthropic_refusal(fault, request_id)
        if self._words == "gemini":
            return faults.gemini_refusal(fault, array=False)
        return faults.openai_refusal(fault, request_id)

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        return None
