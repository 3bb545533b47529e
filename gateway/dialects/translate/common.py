"""What readers and writers share: data URLs, arguments, ids, efforts and budgets, reasoning under seal."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from gateway.dialects.lowering import BUDGETS
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.translate.neutral import Invocation, Message, Part, Returned, Setting, Text, Thought
from gateway.errors import BadBody

_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,", re.ASCII)
_SEAL = "tollgate1."
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
OF_TEXT = "text"  # in a seal, in place of data: what is signed is the text before it
MADE = "call_tg_"  # ids made here, for calls that came without one
LONGEST_ID = 40  # OpenAI's limit

AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}
FORMATS = {mime: name for name, mime in AUDIO.items()} | {"audio/mp3": "mp3", "audio/x-wav": "wav"}


def decode(body: bytes) -> Any:
    """The JSON of a request that was read before (see dialects.body). Raises BadBody."""
    try:
        return msgspec.json.decode(body)
    except DECODE_FAULTS as fault:
        raise BadBody(f"The request body is not valid JSON: {fault}", code="invalid_json") from None


def encode(value: Any) -> bytes:
    """Raises BadBody for what has no place in JSON: a number that is too large, half of a surrogate pair."""
    try:
        return _encode(value)
    except (OverflowError, ValueError, TypeError, RecursionError):
        raise BadBody("The request body holds a value that cannot be written again.", code="invalid_number") from None


def json_text(value: Any) -> str:
    return encode(value).decode()


def object_text(text: str) -> Raw | None:
    """The text of an object, as it can stand in JSON; None for anything else. Nothing stands for an empty object."""
    if not text.strip():
        return Raw(b"{}")
    try:
        _object.decode(text)
    except (*DECODE_FAULTS, UnicodeEncodeError):
        return None
    return Raw(text.encode())


def data_url(url: str) -> tuple[str, str] | None:
    """(media type, base64) of a data URL."""
    found = _DATA_URL.match(url)
    return (image_type(found[1]), url[found.end() :]) if found else None


def image_type(mime: str) -> str:
    """A name that is often written, and that not every provider takes."""
    return "image/jpeg" if mime == "image/jpg" else mime


def words(parts: Iterable[Part]) -> str:
    return "".join([part.text for part in parts if isinstance(part, Text)])


# -- settings ---------------------------------------------------------------------------------------------------------


def put(settings: dict[str, Setting], name: str, value: Any, field: str, *, hint: bool = False) -> None:
    """Note a setting where it has a value."""
    if value is not None and value != ():
        settings[name] = Setting(value, field, hint)


def effort_of(budget: int) -> str:
    """The effort that stands for a budget of thinking tokens: the one whose budget is nearest above it."""
    return next((word for word in ("low", "medium") if budget <= BUDGETS[word]), "high")


def budget_of(effort: str) -> int:
    """The budget that stands for an effort; 0: do not think."""
    return 0 if effort == "none" else BUDGETS.get(effort, BUDGETS["high"])


# -- ids --------------------------------------------------------------------------------------------------------------


def fit_id(text: str) -> str:
    """An id as every provider takes it: the same for the same id."""
    if len(text) > LONGEST_ID:
        return "call_" + blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return _NOT_IN_ID.sub("_", text)


def with_ids(messages: tuple[Message, ...]) -> list[Message]:
    """Calls and results tied by ids that every provider takes, and results that know the name of their tool.

    Where ids are missing (Gemini), results answer calls of the same name in the order of both; the ids made here are
    the same each time the conversation is sent.
    """
    waiting: list[tuple[str, str]] = []  # (id, name) of calls without a result
    names: dict[str, str] = {}
    found: list[Message] = []
    for number, message in enumerate(messages):
        parts: list[Part] = []
        for index, part in enumerate(message.parts):
            if isinstance(part, Invocation):
                id = fit_id(part.id) or f"{MADE}{number}_{index}"
                waiting.append((id, part.name))
                names[id] = part.name
                parts.append(replace(part, id=id))
            else:
                parts.append(_tied(part, waiting, names) if isinstance(part, Returned) else part)
        found.append(replace(message, parts=tuple(parts)))
    return found


def _tied(part: Returned, waiting: list[tuple[str, str]], names: Mapping[str, str]) -> Returned:
    known = fit_id(part.id)
    if not known:
        known = next((id for id, name in waiting if name == part.name), "")
    for index, (id, _) in enumerate(waiting):
        if id == known:
            del waiting[index]
            break
    return replace(part, id=known, name=part.name or names.get(known, ""))


def merged(messages: Iterable[Message]) -> list[Message]:
    """Neighbours of one role as one message: APIs that want the roles in turn take the results of all calls at once."""
    found: list[Message] = []
    for message in messages:
        if found and found[-1].role == message.role and message.role != "system":
            found[-1] = replace(found[-1], parts=(*found[-1].parts, *message.parts))
        else:
            found.append(message)
    return found


def results_first(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda part: not isinstance(part, Returned)))


# -- reasoning under seal ---------------------------------------------------------------------------------------------


def seal(thought: Thought) -> str:
    """A thought of another provider as one opaque word, for clients whose API has such a place for its own."""
    plain = _encode([thought.origin, thought.text, thought.signature, thought.data])
    return _SEAL + urlsafe_b64encode(plain).decode()


def unseal(word: str) -> Thought | None:
    """The reverse; None for a word that was not made here."""
    if not word.startswith(_SEAL):
        return None
    try:
        plain = urlsafe_b64decode(word.removeprefix(_SEAL))
        origin, text, signature, data = msgspec.json.decode(plain, type=tuple[str, str, str, str])
    except (*DECODE_FAULTS, ValueError):
        return None
    return Thought(text, signature, data, origin)


def seal_text(signature: str, origin: str) -> str:
    """A signature of a text, under seal."""
    return seal(Thought(signature=signature, data=OF_TEXT, origin=origin))


def signed(parts: Iterable[Part], origin: str) -> list[Part]:
    """Bare signatures of `origin` moved where its own dialect has them: onto the call behind, or the text before."""
    found: list[Part] = []
    signature = ""
    for part in parts:
        if isinstance(part, Thought) and part.origin == origin and part.signature and not part.text:
            if part.data == OF_TEXT:
                sign_text(found, part.signature)
            else:
                signature = part.signature
            continue
        signs = isinstance(part, Invocation) and signature and not part.signature
        found.append(replace(part, signature=signature) if signs else part)
        signature = ""
    return found


def sign_text(parts: list[Part], signature: str) -> None:
    """Put a signature onto the text at the end; where there is none, onto one without words, as Gemini's streams do."""
    last = parts[-1] if parts else None
    if isinstance(last, Text) and not last.signature and not last.refusal:
        parts[-1] = replace(last, signature=signature)
    else:
        parts.append(Text("", signature=signature))
