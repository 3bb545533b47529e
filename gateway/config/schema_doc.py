"""Every field of the configuration as a page: `python -m gateway.config.schema_doc > docs/configuration.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.config.describe import FROM_ENV
from gateway.config.problems import dotted
from gateway.config.reload import RESTART
from gateway.config.schema_json import json_schema

Schema = Mapping[str, Any]

_INTRO = """# Every field of tollgate.yaml

Made from the types that load the file, as is the JSON Schema for editors (`tollgate config schema`). `tollgate check`
says what is wrong or doubtful in a file, `tollgate config show` what is in force. What belongs together, and why one
would want it, is told in the other pages here.

Durations are seconds, sizes bytes, money US dollars. NAME is one you choose, N the place in a list. A field marked
*secret* may be written `$NAME` or `${NAME}`, which is read from the environment of the gateway; `$$` is a dollar sign.
A field marked *required* must be there wherever its section is. A changed file comes into force at once, but these
fields need a restart: {restart}.
"""
_LIMITS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}


def markdown() -> str:
    """The whole page: a table for each section of the file, those within it behind it."""
    schema = json_schema()
    restart = ", ".join([f"`{dotted(path)}`" for path in sorted(RESTART)])
    return _INTRO.replace("{restart}", restart) + "".join(_sections("", schema, schema["$defs"], {}))


def _sections(path: str, section: Schema, parts: Mapping[str, Schema], known: dict[str, str]) -> Iterator[str]:
    """`known`: where each part was described already, by its name. A part is described where it first occurs."""
    within: list[tuple[str, str]] = []
    rows = []
    for name, field in section["properties"].items():
        here = f"{path}.{name}" if path else name
        for place, part in _parts(here, field):
            if part not in known:
                known[part] = place
                within.append((place, part))
        rows.append(_row(name, field, known, required=name in section.get("required", ())))
    head = "| field | type | default | meaning |\n|---|---|---|---|\n"
    yield f"\n## {path or 'At the top'}\n\n{head}{''.join(rows)}"
    for place, part in within:
        yield from _sections(place, parts[part], parts, known)


def _parts(path: str, field: Schema) -> Iterator[tuple[str, str]]:
    """(path, name) of the parts that a field holds."""
    if "$ref" in field:
        yield path, field["$ref"].rpartition("/")[2]
    for one in field.get("anyOf", ()):
        yield from _parts(path, one)
    if "items" in field:
        yield from _parts(f"{path}.N", field["items"])
    if "additionalProperties" in field:
        yield from _parts(f"{path}.NAME", field["additionalProperties"])


def _row(name: str, field: Schema, known: Mapping[str, str], *, required: bool) -> str:
    meaning = field["description"].replace(FROM_ENV, "*Secret.*" if field.get("writeOnly") else "")
    stated = field.get("default")
    default = "*required*" if required else "" if isinstance(stated, dict) and stated else _value(stated)
    return f"| `{name}` | {_type(field, known)} | {default} | {_plain(meaning).strip()} |\n"


def _type(field: Schema, known: Mapping[str, str]) -> str:
    if "$ref" in field:
        place = known[field["$ref"].rpartition("/")[2]]
        return f"[{place}](#{place.lower().replace('.', '')})"
    if "anyOf" in field:
        return " or ".join(_type(one, known) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return ", ".join(map(_value, field["enum"]))
    if "items" in field:
        return f"list of {_type(field['items'], known)}"
    if "additionalProperties" in field:
        return f"NAME: {_type(field['additionalProperties'], known)}"
    limits = [text.format(f"{field[key]:,}") for key, text in _LIMITS.items() if key in field]
    return f"{field['type']} {', '.join(limits)}".strip()


def _value(value: object) -> str:
    return f"`{_plain(value if isinstance(value, str) else json.dumps(value))}`"


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
