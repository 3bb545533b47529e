"""Writes the files of this directory anew: recorded requests and answers in the words of the other dialects.

    python tests/golden/translations/make.py

Each file names its recording (in tests/golden/cassettes, see the NOTICE there) and holds what the translation makes of
it. They were read by a person when they were made; a change of them is to be read again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gateway.dialects.translate.hub import Asked, Translation
from gateway.errors import Untranslatable
from gateway.testing import cassettes

HERE = Path(__file__).parent
CASSETTES = HERE.parent / "cassettes"
UPSTREAMS = ("openai_chat", "anthropic", "gemini")
CLIENTS = (*UPSTREAMS, "openai_responses")
# recording -> its dialect
REQUESTS = {
    "openai/chat-json-200-3dbbe8c1b3": "openai_chat",  # image, tool
    "azure-openai/chat-json-200-07ed107370": "openai_chat",  # JSON schema, tools, stop
    "groq/chat-sse-200-65514ad8b6": "openai_chat",  # results of tools
    "anthropic/messages-json-200-06967277a9": "anthropic",  # refused: tools of the provider
    "anthropic/messages-json-200-7a37ad4af4": "anthropic",  # choice of a tool, cache marks
    "anthropic/messages-sse-200-2a9c74b67e": "anthropic",  # document, stream
    "anthropic/messages-json-200-3bf8594113": "anthropic",  # thinking by budget
    "gemini/generateContent-json-200-5a67a7dd33": "gemini",  # result of a tool without ids
    "gemini/generateContent-json-200-aa3f055715": "gemini",  # image
    "gemini/generateContent-sse-200-d34ed89e60": "gemini",  # tool with JSON Schema
    "deepseek/responses-sse-200-939187d174": "openai_responses",  # reasoning, call and result as items
    "openai/responses-json-200-eefcc6def2": "openai_responses",  # strict tools
}
ANSWERS = {
    "openai/chat-sse-200-125b6bab01": "openai_chat",  # calls two tools
    "openai/chat-json-200-3dbbe8c1b3": "openai_chat",  # calls a tool
    "deepseek/chat-json-200-d9c5014894": "openai_chat",  # reasoning
    "openai/chat-json-401-de67393a40": "openai_chat",  # error
    "anthropic/messages-sse-200-00368d7254": "anthropic",  # calls a tool
    "anthropic/messages-json-200-3bf8594113": "anthropic",  # signed thinking, calls a tool
    "anthropic/messages-json-401-d5bdb4c87a": "anthropic",  # error
    "gemini/generateContent-sse-200-d34ed89e60": "gemini",  # signed call of a tool
    "gemini/generateContent-json-200-bf89d28bc9": "gemini",  # calls of tools
    "gemini/generateContent-json-404-28bb9645a5": "gemini",  # error
}
QUESTIONS: dict[str, dict[str, Any]] = {
    "openai_chat": {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    "anthropic": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
    "gemini": {"contents": [{"parts": [{"text": "x"}]}]},
    "openai_responses": {"model": "m", "input": "x"},
}


def request(recording: str, client: str, upstream: str) -> Any:
    exchange = cassettes.load(CASSETTES / f"{recording}.json")
    path = re.search(r"models/([^:]+):(\w+)", exchange.target)
    asked = Asked(
        model=path[1] if path else "",
        stream=path is not None and path[2].startswith("stream"),
        send_model=SENT[upstream],
        request_id="golden",
        now=1,
    )
    try:
        sent = Translation(client, upstream, exchange.request_body, asked).sent
    except Untranslatable as fault:
        return {"refused": fault.message}
    return {"path": sent.path.decode(), "body": json.loads(sent.body)}


SENT = {"openai_chat": "gpt-5-mini", "anthropic": "claude-haiku-4-5", "gemini": "gemini-3-flash"}


def answer(recording: str, upstream: str, client: str) -> Any:
    """JSON, or the lines of a stream."""
    exchange = cassettes.load(CASSETTES / f"{recording}.json")
    question = {**QUESTIONS[client], **({"stream": exchange.stream} if client != "gemini" else {})}
    if client == "openai_chat" and exchange.stream:
        question["stream_options"] = {"include_usage": True}
    asked = Asked(model="m", stream=exchange.stream, request_id="golden", now=1)
    translation = Translation(client, upstream, json.dumps(question).encode(), asked)
    if exchange.status >= 400:
        return json.loads(translation.error(exchange.status, exchange.body))
    if not exchange.stream:
        return json.loads(translation.document(exchange.body))
    stream = translation.stream()
    return (stream.feed(exchange.body) + stream.end()).decode().splitlines()


def made() -> dict[str, dict[str, Any]]:
    """File name -> what stands in it."""
    found = {}
    for recording, client in REQUESTS.items():
        said = {to: request(recording, client, to) for to in UPSTREAMS if to != client}
        found[f"request-{recording.replace('/', '-')}.json"] = {"recording": recording, "sent": said}
    for recording, upstream in ANSWERS.items():
        said = {to: answer(recording, upstream, to) for to in CLIENTS if to != upstream}
        found[f"answer-{recording.replace('/', '-')}.json"] = {"recording": recording, "answered": said}
    return found


if __name__ == "__main__":
    for name, value in made().items():
        (HERE / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
