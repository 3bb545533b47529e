"""What collectors answer over HTTP beside a status, which the stock exporters do not look at.

A 2xx may say that part of a batch was rejected; that part is a drop. A redirect is not followed, and would pass for a
success: it is an error, as the address must be set right.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, Literal

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from requests import Response, Session

from gateway.recorder.facts import tidy

Signal = Literal["traces", "metrics"]
_NAMES = {"traces": ("trace", "Trace", "rejected_spans"), "metrics": ("metrics", "Metrics", "rejected_data_points")}
_log = logging.getLogger(__name__)


def session(signal: Signal, rejected: Callable[[int], None]) -> Session:
    """For a stock exporter; `rejected` is told how many spans or data points a collector did not take."""
    package, name, field = _NAMES[signal]
    module = importlib.import_module(f"opentelemetry.proto.collector.{package}.v1.{package}_service_pb2")
    kind = getattr(module, f"Export{name}ServiceResponse")

    def look(response: Response, *_: object, **__: object) -> None:
        if response.is_redirect:
            response.close()
            raise ConnectionError(f"redirected to {tidy(response.headers['location'])}, which is not followed")
        if response.ok and (said := _partial(kind, response)) is not None and (count := getattr(said, field)) > 0:
            _log.warning("the collector rejected %d of the %s: %s", count, signal, tidy(said.error_message))
            rejected(count)

    made = Session()
    made.hooks["response"].append(look)
    return made


def _partial(kind: Any, response: Response) -> Any:
    """None where the answer is no protobuf message of this kind: collectors may answer with anything."""
    try:
        return kind.FromString(response.content).partial_success
    except DecodeError:
        return None
