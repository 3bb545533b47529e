from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from gateway.config.schema import Telemetry
from gateway.recorder.logs import LogProjection
from gateway.recorder.telemetry import Projections, projections
from gateway.testing.telemetry_records import call


def test_only_what_is_configured(tmp_path: Path) -> None:
    made = projections(Telemetry(log=None), dict, lambda: 0.0, {"PATH": "/bin"})
    assert made.sinks == ()
    made = projections(Telemetry(log=str(tmp_path / "log")), dict, lambda: 0.0, {})
    assert [type(sink) for sink in made.sinks] == [LogProjection]
    made.sinks[0].apply([call()])
    made.close(30)
    assert (tmp_path / "log").read_text().count("\n") == 1


def test_the_sdk_is_not_imported_where_nothing_is_exported() -> None:
    code = (
        "import sys, time\n"
        "from gateway.config.schema import Telemetry\n"
        "from gateway.recorder.telemetry import projections\n"
        "projections(Telemetry(), dict, time.time, {}).close(1)\n"
        "costly = ('opentelemetry.sdk', 'opentelemetry.exporter', 'grpc')\n"
        "print([name for name in sys.modules if name.startswith(costly)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_all_are_closed_at_once_and_within_the_time() -> None:
    class Stuck:
        def __init__(self) -> None:
            self.asked = threading.Event()
            self.gate = threading.Event()

        def apply(self, batch: object) -> None: ...

        def close(self, timeout: float) -> None:
            self.asked.set()
            self.gate.wait(30)

    stuck = [Stuck() for _ in range(3)]
    made = Projections(projections(Telemetry(log=None), dict, lambda: 0.0, {}).metrics, tuple(stuck))
    closing = threading.Thread(target=made.close, args=(0.1,))
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert all(sink.asked.wait(10) for sink in stuck)
    for sink in stuck:
        sink.gate.set()
