"""Questions by hand, in every dialect, and what came back: for the tests of budgets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import PATIENCE, RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, post

INPUT, OUTPUT = 1, 40  # USD per million tokens
MICRO = 1e-6
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
FORMS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:generateContent",
    "gemini_stream": "/v1beta/models/{model}:streamGenerateContent?alt=sse",
    "embeddings": "/v1/embeddings",
}


def prices(*models: str) -> dict[str, Any]:
    return {"models": {model: {"input": INPUT, "output": OUTPUT} for model in models}}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def message(self) -> str:
        return str(self.error["message"])

    @property
    def remaining(self) -> float:
        """What the tightest budget still has, in USD."""
        return float(self.headers["x-tollgate-budget-remaining-usd"])


def body_of(form: str, model: str, text: str, most: int | None, **more: Any) -> dict[str, Any]:
    """A question in one of FORMS; `most`: tokens of the answer at most, None: not said."""
    if form.startswith("gemini"):
        config = {} if most is None else {"generationConfig": {"maxOutputTokens": most}}
        return {"contents": [{"role": "user", "parts": [{"text": text}]}], **config, **more}
    if form == "responses":
        return {"model": model, "input": text, **({} if most is None else {"max_output_tokens": most}), **more}
    if form == "embeddings":
        return {"model": model, "input": text, **more}
    limit = {} if most is None else {"max_tokens": most}
    if form == "completions":
        return {"model": model, "prompt": text, **limit, **more}
    return {"model": model, "messages": [{"role": "user", "content": text}], **limit, **more}


def request_of(
    form: str, model: str, text: str = "[[tokens 5]]", most: int | None = 100, *, prefix: str = "", headers: Any = (),
    **more: Any,
) -> bytes:  # fmt: skip
    body = json.dumps(body_of(form, model, text, most, **more)).encode()
    lines = [f"{name}: {value}".encode() for name, value in dict(headers).items()]
    if form == "messages":
        lines.append(b"anthropic-version: 2023-06-01")
    return post(prefix + FORMS[form].format(model=model), body, *lines)


def port_of(gate: RunningGateway) -> int:
    return int(gate.config["listen"].rpartition(":")[2])


def seen(answer: RawAnswer) -> Answer:
    return Answer(answer.status, {k.decode().lower(): v.decode() for k, v in answer.headers}, answer.body)


def send(gate: RunningGateway, data: bytes, timeout: float = 30) -> Answer:
    with RawClient(port_of(gate), timeout=timeout) as client:
        client.send(data)
        return seen(client.answer())


def ask(gate: RunningGateway, form: str, model: str, *args: Any, **kwargs: Any) -> Answer:
    return send(gate, request_of(form, model, *args, **kwargs))


class Waiting:
    """A call under way, whose answer is looked at later."""

    def __init__(self, gate: RunningGateway, *args: Any, **kwargs: Any) -> None:
        self.client = RawClient(port_of(gate))
        self.client.send(request_of(*args, **kwargs))

    def answer(self) -> Answer:
        try:
            return seen(self.client.answer())
        finally:
            self.client.close()

    def answer_rest(self) -> bytes:
        """What still comes, up to the end of the connection."""
        data = b""
        try:
            while piece := self.client.more():
                data += piece
        except ConnectionError:
            pass
        finally:
            self.client.close()
        return data

    def leave(self) -> None:
        self.client.close()


def until(look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What `look` returns once it is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"still {found!r}"
        time.sleep(0.02)
    return found


def asked_of(fake: FakeUpstream, mark: str) -> list[Any]:
    """The requests that reached the upstream with this in their body or path."""
    return [one for one in list(fake.requests) if mark.encode() in one.body or mark in one.target]


def under_way(fake: FakeUpstream, mark: str) -> None:
    """Until a request with this mark has come to the upstream."""
    until(lambda: any(one.body for one in asked_of(fake, mark)))


def spend(gate: RunningGateway, model: str, calls: int = 20, **kwargs: Any) -> Answer:
    """Ask until it is refused; the refusal."""
    for _ in range(calls):
        answer = ask(gate, "chat", model, **kwargs)
        if answer.status != 200:
            return answer
    raise AssertionError(f"never refused in {calls} calls")
