"""The configuration file, as frozen types. One flat YAML; every field has a default but what nobody can guess.

Durations are seconds, sizes bytes. A value `$NAME` anywhere in a secret field is read from the environment.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0, le=86_400, title="number of seconds")]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", title="name (letters, digits, . _ -)")]
DialectName = Literal["openai", "anthropic", "gemini", "opaque"]


class Config_(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section: frozen, and no unknown field passes.

    `secret` names the fields whose values, and the values of whose entries, must never be shown; `repr` masks them.
    """

    secret: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = ", ".join(f"{name}={'***' if value and name in self.secret else repr(value)}" for name, value in fields)
        return f"{type(self).__name__}({shown})"


class Tls(Config_, frozen=True):
    certificate: str
    key: str


class Timeouts(Config_, frozen=True):
    connect: Seconds = 10
    first_byte: Seconds = 600
    idle: Seconds = 300  # between two pieces of an answer
    total: Seconds = 3600


class Upstream(Config_, frozen=True):
    secret: ClassVar[frozenset[str]] = frozenset({"key", "headers"})

    dialect: DialectName
    url: str  # https://api.openai.com (with or without /v1; paths are appended as the dialect's clients expect)
    key: str | None = None  # "$OPENAI_API_KEY"; None: the client's own key passes through
    headers: dict[str, str] = {}
    timeouts: Timeouts = Timeouts()
    ca_file: str | None = None
    provider: str | None = None  # genai-prices provider id; guessed from the url
    inject_usage: bool = True
    on_client_gone: Literal["cancel", "drain"] = "cancel"
    drain_seconds: Seconds = 30  # bound of `drain` in time
    drain_usd: Annotated[float, Meta(ge=0)] = 0.25  # and in cost
    propagate_trace: bool = False  # send traceparent upstream


class Alias(Config_, frozen=True):
    model: str
    upstream: Name | None = None


class Price(Config_, frozen=True):
    """Override: USD per million tokens (requests: per thousand). Unset components follow input/output."""

    input: Annotated[float, Meta(ge=0)] | None = None
    output: Annotated[float, Meta(ge=0)] | None = None
    cache_read: Annotated[float, Meta(ge=0)] | None = None
    cache_write: Annotated[float, Meta(ge=0)] | None = None
    cache_write_1h: Annotated[float, Meta(ge=0)] | None = None
    reasoning: Annotated[float, Meta(ge=0)] | None = None
    input_audio: Annotated[float, Meta(ge=0)] | None = None
    output_audio: Annotated[float, Meta(ge=0)] | None = None
    requests: Annotated[float, Meta(ge=0)] | None = None
    web_searches: Annotated[float, Meta(ge=0)] | None = None


class Prices(Config_, frozen=True):
    models: dict[str, Price] = {}  # "model" or "provider/model"
    litellm_file: str | None = None  # a file in LiteLLM's model_prices format


class Identity(Config_, frozen=True):
    tenant: Name = "default"
    tenant_header: str | None = None
    run_header: str | None = None
    agent_header: str | None = None
    links: Count = 65_536  # bound of what is remembered to join the calls of a run
    run_idle_seconds: Seconds = 3600  # a run without calls for so long is over; derived joins go no further back


class Journal(Config_, frozen=True):
    directory: str | None = None  # default: <state directory>/journal
    segment_bytes: Annotated[int, Meta(ge=65_536)] = 67_108_864
    retention_bytes: Annotated[int, Meta(ge=1_048_576)] = 4_294_967_296
    retention_days: Annotated[float, Meta(gt=0)] = 30
    required: bool = False  # refuse calls that cannot be written down
    fsync: bool = False  # fsync every record (power loss); a kill of any process never needs it


class Otlp(Config_, frozen=True):
    secret: ClassVar[frozenset[str]] = frozenset({"headers"})

    endpoint: str  # http://127.0.0.1:4318
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    headers: dict[str, str] = {}
    metrics: bool = True
    traces: bool = True


class Sampling(Config_, frozen=True):
    """What is always kept: errors, slow, expensive, first-seen models. The rest shares a budget."""

    traces_per_second: Annotated[float, Meta(ge=0)] = 10
    slow_seconds: Seconds = 30
    expensive_usd: Annotated[float, Meta(ge=0)] = 1


class Telemetry(Config_, frozen=True):
    otlp: Otlp | None = None  # also from OTEL_EXPORTER_OTLP_ENDPOINT
    sampling: Sampling = Sampling()
    legacy_attributes: bool = False  # also write gen_ai.system, gen_ai.usage.cache_creation.input_tokens
    log: str | None = "stdout"  # one wide JSON line per call: "stdout", a file path, or null
    label_limit: Count = 200  # values per metric label before __other__


class Limits(Config_, frozen=True):
    body_bytes: Count = 67_108_864
    header_bytes: Count = 65_536
    headers: Count = 200
    header_seconds: Seconds = 10
    body_seconds: Seconds = 120  # without progress
    write_seconds: Seconds = 60  # a client that takes nothing for so long is cut
    keepalive_seconds: Seconds = 75
    connections: Count = 10_000
    drain_seconds: Seconds = 30
    lame_duck_seconds: Annotated[float, Meta(ge=0, le=600)] = 0  # unready, but still accepting, before the drain


class Config(Config_, frozen=True):
    secret: ClassVar[frozenset[str]] = frozenset({"admin_token"})

    listen: str = "127.0.0.1:8787"
    admin: str = "127.0.0.1:8788"
    admin_token: str | None = None  # required where admin is not on loopback
    tls: Tls | None = None
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    state: str | None = None  # state directory; default $XDG_STATE_HOME/tollgate
    upstreams: dict[Name, Upstream] = {}
    aliases: dict[str, Alias | str] = {}
    prices: Prices = Prices()
    identity: Identity = Identity()
    capture: Literal["off", "hash", "full"] = "off"
    capture_bytes: Count = 65_536
    cost_header: bool = True
    stream_cost_comment: bool = False
    journal: Journal = Journal()
    telemetry: Telemetry = Telemetry()
    limits: Limits = Limits()
