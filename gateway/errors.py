"""Every error of the gateway, one tree.

    GatewayError                      source   status  code
    ├─ Rejected                       client   400     invalid_request      the call itself is wrong
    │  ├─ BadFraming                  client   400     bad_framing          ambiguous HTTP; the connection is closed
    │  ├─ BadPath                     client   400     bad_path             dot segments, encoded slashes, ...
    │  ├─ BadBody                     client   400     invalid_body         JSON faults, duplicate keys, bombs
    │  ├─ Untranslatable              client   400     untranslatable       the upstream's API cannot say it
    │  ├─ UnknownRoute                client   404     unknown_route
    │  ├─ UnknownSession              client   404     session_not_found    of another key: MCP clients begin a new one
    │  ├─ MethodNotAllowed            client   405     method_not_allowed
    │  ├─ SlowClient                  client   408     client_too_slow
    │  ├─ BodyTooLarge                client   413     request_too_large
    │  ├─ HeadersTooLarge             client   431     headers_too_large
    │  ├─ Unauthorized                client   401     unauthorized
    │  ├─ Forbidden                   client   403     forbidden            the key may not do this
    │  ├─ BudgetExceeded              client   402     budget_exceeded      its worst case does not fit; not retried
    │  ├─ RunStopped                  client   402     run_stopped          by a person, or by the loop breaker
    │  ├─ LimitReached                client   429     limit_reached        a rate or a window that resets soon
    │  ├─ NotCached                   client   504     not_cached           the client wants a stored answer or none
    │  └─ LoopDetected                client   508     loop_detected        the call already passed this gateway
    ├─ ClientGone                     client   499     client_gone          nobody is left to answer
    ├─ Overtaken                      upstream 499     overtaken            another attempt of the call answered first
    ├─ UpstreamFault                  upstream 502     upstream_fault
    │  ├─ ConnectFailed               upstream 502     upstream_connect_failed   nothing was sent
    │  ├─ BreakerOpen                 upstream 503     upstream_breaker_open     it failed too often; nothing was sent
    │  ├─ UpstreamTimeout             upstream 504     upstream_timeout     connect, first byte or total
    │  ├─ UpstreamReset               upstream 502     upstream_reset       cut before an answer began
    │  ├─ BadAnswer                   upstream 502     upstream_bad_answer  not HTTP, lying length, broken encoding
    │  ├─ StreamErrored               upstream 502     upstream_stream_error     error event inside a 200
    │  ├─ StreamTruncated             upstream 502     upstream_truncated   ended without its terminal event
    │  ├─ StreamStalled               upstream 504     upstream_stalled     idle limit between bytes
    │  └─ Unverified                  upstream 502     unverified           whole, but not of the form demanded; a
    │                                                                       dearer model is asked
    └─ GatewayFault                   gateway  500     internal
       ├─ Draining                    gateway  503     draining
       ├─ Overloaded                  gateway  503     overloaded
       │  ├─ NoPlace                  gateway  503     bulkhead_full        its pool; also queue_timeout, deadline_...
       │  └─ NoDescriptor             gateway  503     no_descriptors       this worker may open no more files
       ├─ JournalUnavailable          gateway  503     journal_unavailable
       ├─ BudgetsUnavailable          gateway  503     budgets_unavailable  the store of budgets does not answer
       ├─ EmbedderUnavailable         gateway  503     embedder_unavailable nothing tells how alike questions are
       └─ LedgerUnavailable           gateway  503     ledger_unavailable
          └─ LedgerDamaged            gateway  503     ledger_damaged       it is made again from the journal

Each error states its source (who is to blame), a stable code, an HTTP status, and whether the same call may
be tried again. Foreign exceptions are translated into this tree once, at the edge where they occur.
"""

from __future__ import annotations

import enum
from typing import Any


class Source(enum.StrEnum):
    """Who is to blame; becomes a metric label."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class GatewayError(Exception):
    """Base of everything the gateway answers with by itself.

    `retry_after` is in whole seconds; `param` names the offending field of the request, if any.
    """

    source = Source.GATEWAY
    code = "internal"
    status = 500
    retryable = False

    def __init__(
        self, message: str = "", *, code: str | None = None, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message or self.code.replace("_", " "))
        self.message = str(self)
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class Rejected(GatewayError):
    source, code, status = Source.CLIENT, "invalid_request", 400


class BadFraming(Rejected):
    code = "bad_framing"


class BadPath(Rejected):
    code = "bad_path"


class BadBody(Rejected):
    code = "invalid_body"


class Untranslatable(Rejected):
    code = "untranslatable"


class UnknownRoute(Rejected):
    code, status = "unknown_route", 404


class UnknownSession(Rejected):
    code, status = "session_not_found", 404


class MethodNotAllowed(Rejected):
    code, status = "method_not_allowed", 405


class SlowClient(Rejected):
    code, status, retryable = "client_too_slow", 408, True


class BodyTooLarge(Rejected):
    code, status = "request_too_large", 413


class HeadersTooLarge(Rejected):
    code, status = "headers_too_large", 431


class Unauthorized(Rejected):
    code, status = "unauthorized", 401


class Forbidden(Rejected):
    code, status = "forbidden", 403


class BudgetExceeded(Rejected):
    code, status = "budget_exceeded", 402


class RunStopped(Rejected):
    code, status = "run_stopped", 402


class LimitReached(Rejected):
    code, status, retryable = "limit_reached", 429, True


class NotCached(Rejected):
    code, status = "not_cached", 504  # RFC 9111 5.2.1.7


class LoopDetected(Rejected):
    code, status = "loop_detected", 508


class ClientGone(GatewayError):
    source, code, status = Source.CLIENT, "client_gone", 499


class Overtaken(GatewayError):
    source, code, status = Source.UPSTREAM, "overtaken", 499


class UpstreamFault(GatewayError):
    source, code, status, retryable = Source.UPSTREAM, "upstream_fault", 502, True


class ConnectFailed(UpstreamFault):
    code = "upstream_connect_failed"


class BreakerOpen(UpstreamFault):
    code, status = "upstream_breaker_open", 503


class UpstreamTimeout(UpstreamFault):
    code, status = "upstream_timeout", 504


class UpstreamReset(UpstreamFault):
    code = "upstream_reset"


class BadAnswer(UpstreamFault):
    code = "upstream_bad_answer"


class StreamErrored(UpstreamFault):
    code = "upstream_stream_error"


class StreamTruncated(UpstreamFault):
    code = "upstream_truncated"


class StreamStalled(UpstreamFault):
    code, status = "upstream_stalled", 504


class Unverified(UpstreamFault):
    """`spare`: the answer, to be passed on where nothing better can be asked; see stages.cascade."""

    code = "unverified"
    spare: Any = None


class GatewayFault(GatewayError):
    """A fault of the gateway itself."""


class Draining(GatewayFault):
    code, status, retryable = "draining", 503, True


class Overloaded(GatewayFault):
    code, status, retryable = "overloaded", 503, True


class NoPlace(Overloaded):
    """Of a pool of calls that go at once: nothing was sent."""

    code = "bulkhead_full"


class NoDescriptor(Overloaded):
    """For a connection, of a client or to an upstream: nothing was sent."""

    code = "no_descriptors"


class JournalUnavailable(GatewayFault):
    code, status, retryable = "journal_unavailable", 503, True


class BudgetsUnavailable(GatewayFault):
    code, status, retryable = "budgets_unavailable", 503, True


class EmbedderUnavailable(GatewayFault):
    code, status = "embedder_unavailable", 503


class LedgerUnavailable(GatewayFault):
    code, status, retryable = "ledger_unavailable", 503, True


class LedgerDamaged(LedgerUnavailable):
    code = "ledger_damaged"
