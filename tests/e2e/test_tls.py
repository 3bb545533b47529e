"""TLS on both sides of a real gateway: verified towards upstreams, renewed without a restart towards clients."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.testing.faults import Close, Script, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, chunks, post, request
from gateway.testing.scripted import Background, ScriptedUpstream

CHAT = "/v1/chat/completions"
BODY = b'{"model":"gpt-4o","messages":[]}'
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"}}],' + COUNT + b"}"
SCRIPTS: dict[str, Script] = {
    "": [Send(answer(ANSWER))],
    "stream": [Send(chunked(CHUNK, b"data: [DONE]\n\n"))],
    "cut": [Send(chunked(CHUNK, end=b"")), Close()],
    "closes later": [Send(answer(ANSWER)), Wait(0.05), Close()],
    "large": [Send(answer(ANSWER[:-1] + b" " * 3_000_000 + b"}"))],
}
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority of this test run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.file = directory / "ca.pem"
        made = self._build(self._name, self._key, days=2).add_extension(x509.BasicConstraints(True, None), True)
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _build(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - 3 * DAY)
            .not_valid_after(now + days * DAY)
        )

    def issue(self, name: str, *, address: str = "127.0.0.1", days: int = 1, own: bool = False) -> tuple[Path, Path]:
        """Files of certificate and key. `own`: signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = self._build(subject, key, days).add_extension(names, critical=False)
        certificate, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        signed = made.sign(key if own else self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
        return certificate, private

    def server(self, name: str, **options: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, **options))
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


def outdated(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let it speak nothing newer than TLS 1.1."""
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


class TlsUpstream(ScriptedUpstream):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(SCRIPTS)
        self.context = context

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, 0, limit=2**20, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


class Stage:
    def __init__(self, ups: Mapping[str, ScriptedUpstream], gate: RunningGateway, authority: Authority) -> None:
        self.ups, self.gate, self.authority = ups, gate, authority
        self.port = int(gate.config["listen"].rpartition(":")[2])

    def client(self) -> RawClient:
        return RawClient(self.port, tls=self.authority.client())

    def play(self, script: str = "", upstream: str = "good", body: bytes = BODY) -> RawAnswer:
        with self.client() as client:
            client.send(post(f"/{upstream}{CHAT}", body, b"x-script: " + script.encode()))
            return client.answer()


@pytest.fixture(scope="module")
def stage(authority: Authority) -> Iterator[Stage]:
    contexts = {
        "good": authority.server("good"),
        "untrusted": authority.server("untrusted"),
        "expired": authority.server("expired", days=-1),
        "misnamed": authority.server("misnamed", address="127.0.0.2"),
        "own": authority.server("own", own=True),
        "old": outdated(authority.server("old")),
    }
    certificate, key = authority.issue("gate")
    runs = {name: Background(TlsUpstream(context)) for name, context in contexts.items()}
    with socket.create_server(("127.0.0.1", 0)) as mute:
        ups = {name: run.__enter__() for name, run in runs.items()}
        urls = {name: up.url for name, up in ups.items()}
        urls["mute"] = f"https://127.0.0.1:{mute.getsockname()[1]}"
        upstreams: dict[str, dict[str, Any]] = {
            name: {"dialect": "openai", "url": url, "timeouts": {"connect": 1}, "provider": "openai"}
            for name, url in urls.items()
        }
        for name, upstream in upstreams.items():
            if name != "untrusted":
                upstream["ca_file"] = str(authority.file)
        tls = {"certificate": str(certificate), "key": str(key)}
        limits = {"body_bytes": 100_000}
        with RunningGateway(upstreams, tls=tls, limits=limits, telemetry={"log": None}) as gate:
            yield Stage(ups, gate, authority)
        for run in runs.values():
            run.__exit__(None, None, None)


def test_both_sides_encrypted(stage: Stage) -> None:
    with stage.client() as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() in {"TLSv1.2", "TLSv1.3"}
        for _ in range(3):
            client.send(post(f"/good{CHAT}", BODY))
            got = client.answer()
            assert (got.status, got.body, got.complete) == (200, ANSWER, True)
    assert len({seen.connection for seen in stage.ups["good"].seen}) == 1, "TLS connections are kept, too"


def test_streams_and_large_answers(stage: Stage) -> None:
    got = stage.play("stream", body=BODY[:-1] + b',"stream":true}')
    assert (got.body, got.complete) == (CHUNK + b"data: [DONE]\n\n", True)
    got = stage.play("large")
    assert (len(got.body), got.complete) == (len(ANSWER) + 3_000_000, True)


def test_a_cut_stream_is_cut(stage: Stage) -> None:
    got = stage.play("cut", body=BODY[:-1] + b',"stream":true}')
    assert (got.status, got.complete) == (200, False)
    assert b'"code":"upstream_cut"' in got.body


def test_a_kept_connection_that_was_closed_is_not_used(stage: Stage) -> None:
    for _ in range(3):
        assert stage.play("closes later").status == 200
        threading.Event().wait(0.1)
    assert stage.play().status == 200


@pytest.mark.parametrize(
    ("upstream", "word"),
    [
        ("untrusted", "issuer"),
        ("expired", "expired"),
        ("misnamed", "127.0.0.1"),
        ("own", ""),
        ("old", ""),
    ],
)
def test_who_cannot_be_verified_gets_no_byte(stage: Stage, upstream: str, word: str) -> None:
    got = stage.play(upstream=upstream)
    error = json.loads(got.body)["error"]
    assert (got.status, error["code"]) == (502, "upstream_tls_failed")
    assert word in error["message"]
    assert not stage.ups[upstream].seen


def test_a_handshake_without_end_is_given_up(stage: Stage) -> None:
    got = stage.play(upstream="mute")
    assert (got.status, json.loads(got.body)["error"]["code"]) == (504, "upstream_connect_timeout")


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_413_can_be_read_while_megabytes_are_still_sent(stage: Stage, in_chunks: bool) -> None:
    piece = b" " * 16_384
    head = request("POST", CHAT, b"Transfer-Encoding: chunked" if in_chunks else b"Content-Length: 9000000")
    with stage.client() as client:
        client.send(head)
        client.send((chunks(piece, end=b"") if in_chunks else piece) * 300)
        got = client.answer()
    assert (got.status, json.loads(got.body)["error"]["code"]) == (413, "request_too_large")


def test_plain_text_at_the_tls_port_harms_nobody(stage: Stage) -> None:
    with RawClient(stage.port) as client:
        client.send(request("GET", "/v1/models"))
        assert client.ends(30) in {"closed", "reset"}
    assert stage.play().status == 200


def test_old_versions_are_refused(stage: Stage) -> None:
    with pytest.raises(ssl.SSLError):
        RawClient(stage.port, tls=outdated(stage.authority.client()))


def serial(stage: Stage) -> str:
    with stage.client() as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        shown = client.socket.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


def test_a_renewed_certificate_is_shown_without_a_restart(stage: Stage) -> None:
    before = serial(stage)
    with stage.client() as old:
        stage.authority.issue("gate")
        stage.gate.until(lambda: serial(stage), lambda now: now != before)
        old.send(post(f"/good{CHAT}", BODY))
        assert old.answer().status == 200, "connections outlive their certificate"
