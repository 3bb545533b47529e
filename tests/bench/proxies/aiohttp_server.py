"""aiohttp on both sides, tuned: its low-level server, its client without cookies, decoding or automatic headers."""

from __future__ import annotations

import asyncio
import functools

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

from tests.bench.proxies.common import HOP, PORT, UPSTREAM


@functools.cache
def target(path):
    return URL(UPSTREAM + path, encoded=True)


def forwarded(headers):
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP)


async def main():
    session = ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=60),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=ClientTimeout(total=None, sock_connect=5, sock_read=300),
    )

    async def proxy(request):
        url = target(request.raw_path)
        body = await request.read()
        asked = session.request(
            request.method, url, headers=forwarded(request.headers), data=body, allow_redirects=False
        )
        async with asked as answer:
            headers = forwarded(answer.headers)
            if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                return web.Response(status=answer.status, headers=headers, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    server = web.Server(proxy, access_log=None, keepalive_timeout=75)
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", PORT, backlog=4096)
    await asyncio.Event().wait()


uvloop.run(main())
