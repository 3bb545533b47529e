"""The neutral form: what a conversation, its settings, an answer and the events of a stream are in every chat API.

Rules
1. Each dialect has one reader into this form and one writer from it (hub and spoke); no module knows two dialects.
2. Every part says `at` which field of the client's body it comes from, so that what a writer cannot say is named in the
   client's own words.
3. Arguments of tools are JSON text as it came, or as it was encoded once; they are never re-arranged.
4. A `Setting` that is only a hint (bookkeeping, cost, a default) may be left out by a dialect that does not know it;
   every other one is carried or lost, and what is lost is refused (see `losses`).
5. What only the provider that made it can read (signatures of reasoning) carries the name of its `origin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from gateway.call import Usage

STOP, LENGTH, TOOLS, FILTERED = "stop", "length", "tools", "filtered"
"""Why an answer ended. `FILTERED`: the provider or the model declined."""

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
IMAGE, DOCUMENT, AUDIO, VIDEO = "image", "document", "audio", "video"


# -- what is said -----------------------------------------------------------------------------------------------------


class Text(Struct, frozen=True):
    text: str
    cache: str = ""  # mark of a prompt cache behind this part: its ttl, "5m" where none is stated
    signature: str = ""  # of Gemini, of the reasoning that led to it
    refusal: bool = False  # the model says why it declines
    at: str = ""


class Media(Struct, frozen=True):
    """`data` is base64; a document may be plain `text` instead. Exactly one of data, url, file and text is set."""

    kind: str
    mime: str = ""
    data: str = ""
    url: str = ""
    file: str = ""  # name of an uploaded file, which only its origin knows
    text: str = ""
    name: str = ""  # file name or title
    detail: str = ""  # of an image: low, high
    origin: str = ""
    cache: str = ""
    at: str = ""


class Thought(Struct, frozen=True):
    """Reasoning. `signature` proves the text, `data` is reasoning that only its origin can read."""

    text: str = ""
    signature: str = ""
    data: str = ""
    origin: str = ""
    at: str = ""


class Invocation(Struct, frozen=True):
    """A call of a tool of the client's. `signature`: Gemini's, of the reasoning that led to it."""

    name: str
    arguments: str  # JSON text of an object
    id: str = ""
    signature: str = ""
    at: str = ""


class Returned(Struct, frozen=True):
    """What a tool brought. `json`: the text of an object, where the client's dialect has objects as results."""

    id: str
    name: str = ""
    parts: tuple[Text | Media, ...] = ()
    json: str = ""
    error: bool = False
    cache: str = ""
    at: str = ""

    @property
    def text(self) -> str:
        return self.json or "".join([part.text for part in self.parts])


Part = Text | Media | Thought | Invocation | Returned


class Message(Struct, frozen=True):
    role: str  # system, user, assistant
    parts: tuple[Part, ...]
    name: str = ""  # of the participant
    at: str = ""


# -- what is asked ----------------------------------------------------------------------------------------------------


class Tool(Struct, frozen=True):
    name: str
    description: str = ""
    schema: dict[str, Any] | None = None
    strict: bool = False  # its arguments must keep to the schema
    cache: str = ""
    at: str = ""


class Pick(Struct, frozen=True):
    """Which tools the model may or must call: mode auto, none or any; `names`: only these."""

    mode: str
    names: tuple[str, ...] = ()
    at: str = ""
    validated: bool = False  # all arguments must keep to their schemas


class Format(Struct, frozen=True):
    """The answer is JSON; with a schema, of that form."""

    schema: dict[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool = True


class Setting(Struct, frozen=True):
    value: Any
    field: str  # in the client's words
    hint: bool = False


class Question(Struct, frozen=True):
    """`settings` by neutral name: max_output, temperature, top_p, top_k, stop, seed, presence_penalty,
    frequency_penalty, n, effort (a word), budget (tokens of thinking; -1: as the model sees fit), thoughts (show them),
    format, parallel, end_user, service_tier, ..."""

    model: str
    stream: bool
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    pick: Pick | None = None
    settings: Mapping[str, Setting] = {}
    usage: bool = True  # its stream shall carry usage


# -- what is answered -------------------------------------------------------------------------------------------------


class Choice(Struct, frozen=True):
    index: int
    parts: tuple[Part, ...]
    reason: str = ""
    sequence: str = ""  # the stop sequence that ended it


class Reply(Struct, frozen=True):
    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage | None = None


class Began(Struct, frozen=True):
    id: str
    model: str


class Said(Struct, frozen=True):
    """A piece of a part: text, reasoning, or arguments. `key` tells the tool calls of a choice apart."""

    choice: int
    kind: str  # text, refusal, thought, signature (of a thought), mark (signature of a text), sealed, arguments
    text: str
    key: int = -1
    origin: str = ""


class Called(Struct, frozen=True):
    choice: int
    key: int
    name: str
    id: str = ""
    signature: str = ""


class Stopped(Struct, frozen=True):
    choice: int
    reason: str
    sequence: str = ""


class Counted(Struct, frozen=True):
    usage: Usage


class Failed(Struct, frozen=True):
    """The provider reported an error: in the stream or in place of an answer."""

    message: str
    kind: str = ""  # in the provider's words
    status: int = 500
    code: str = ""
    param: str = ""


class Done(Struct, frozen=True):
    """The stream came to its proper end."""


Event = Began | Said | Called | Stopped | Counted | Failed | Done
