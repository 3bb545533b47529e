"""TLS on both sides: contexts, and certificates that are renewed on disk while we run."""

from __future__ import annotations

import contextlib
import os
import ssl

from gateway.config.schema import Tls


def client_context(ca_file: str | None) -> ssl.SSLContext:
    """Verified TLS towards an upstream. Raises OSError for a CA file that cannot be used."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class ListenerTls:
    """The listener's context; `refresh` takes up a renewed certificate for the handshakes to come."""

    def __init__(self, files: Tls) -> None:
        """Raises OSError (ssl.SSLError included) for files that cannot be used."""
        self.files = files
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._state()
        self.context.load_cert_chain(files.certificate, files.key)

    def refresh(self) -> None:
        """A pair that does not fit (half renewed) leaves the old one in force; it is looked at again later."""
        state = self._state()
        if state == self._seen:
            return
        with contextlib.suppress(OSError):
            self.context.load_cert_chain(self.files.certificate, self.files.key)
            self._seen = state

    def _state(self) -> tuple[tuple[int, int], ...]:
        try:
            found = [os.stat(name) for name in (self.files.certificate, self.files.key)]
        except OSError:
            return ()
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in found)
