"""Which requests that ask no model cost nothing: reads, counts, what ends or keeps something; by method and path alone.

A request that asks to be taken for one of another method (by a header, or a parameter of the query) is none of them.
"""

from __future__ import annotations

import re

from gateway.call import Call

READS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"DELETE"))
POSTS = frozenset(
    {"/v1/responses/{id}/cancel", "/v1/responses/input_tokens", "/v1/messages/count_tokens"}
    | {"/v1beta/models/{model}:countTokens", "/model/{modelId}/count-tokens", "/api/show"}
)
OVERRIDES = frozenset((b"x-http-method-override", b"x-http-method", b"x-method-override",
                       b"x-original-url", b"x-rewrite-url"))  # fmt: skip
IN_QUERY = (b"httpmethod=", b"_method=")  # what Google's front ends and others read in the place of these headers

# What ends something that costs, wherever it is.
_ENDS = re.compile(rb"(?:.*/)?(?:(?:batches|jobs|uploads)/[^/:]+/cancel|batches/[^/:]+:cancel)/?")
# What these providers ask no money for, by their price lists; others of the same API may. Not what adds to a history
# that later calls are held for by what is remembered of it.
_UNPAID = {
    "openai": re.compile(
        rb"/v1/(?:moderations|files|uploads(?:/[^/]+/(?:parts|complete))?|chat/completions/[^/]+"
        rb"|conversations(?:/[^/]+)?)/?"
    ),
    "anthropic": re.compile(rb"/v1/files/?"),
    "google": re.compile(rb"/(?:resumable/)?upload/v1(?:alpha|beta)?/files/?"),
}


def is_free(call: Call, provider: str) -> bool:
    """Does a request that asks no model cost nothing, whoever reads it?"""
    request, route = call.request, call.route
    path, _, query = route.path.partition(b"?")
    if request.method not in READS and (request.method != b"POST" or not _is_free_post(route.template, path, provider)):
        return False
    query = query.lower()
    return OVERRIDES.isdisjoint(request.names) and not any([name in query for name in IN_QUERY])


def _is_free_post(template: str, path: bytes, provider: str) -> bool:
    if template in POSTS or _ENDS.fullmatch(path):
        return True
    unpaid = _UNPAID.get(provider)
    return unpaid is not None and unpaid.fullmatch(path) is not None
