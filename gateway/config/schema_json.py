"""The JSON Schema of the configuration file, made from the types that load it."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.config.describe import FIELDS
from gateway.config.schema import Config, Config_

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that describes every field; rules that join fields are `tollgate check`'s alone."""
    _, parts = msgspec.json.schema_components([Config], ref_template="#/$defs/{name}")
    for section, texts in FIELDS.items():
        properties = parts[section.__name__]["properties"]
        for field, text in texts.items():
            properties[field]["description"] = text
            if field in section.secret:
                properties[field]["writeOnly"] = True
    root = parts.pop(Config.__name__)
    return {"$schema": DRAFT, **root, "title": "tollgate.yaml", "$defs": dict(sorted(parts.items()))}


def undescribed() -> list[str]:
    """Fields without a description, and descriptions without a field; a test keeps this empty."""
    faults = []
    for section in _sections(Config_):
        described = FIELDS.get(section, {})
        faults += [f"{section.__name__}.{field}" for field in set(section.__struct_fields__) ^ set(described)]
    return sorted(faults)


def _sections(base: type[Config_]) -> list[type[Config_]]:
    """Those that can stand in the file: what others are made from cannot."""
    return [one for section in base.__subclasses__() for one in _sections(section) or [section]]
