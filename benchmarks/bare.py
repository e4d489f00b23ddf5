"""What everything is compared with: the least that a gateway on aiohttp can do. It checks a key and passes bytes on.

python benchmarks/bare.py PORT UPSTREAM_PORT KEY
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

PORT, UPSTREAM, KEY = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
SESSION = web.AppKey("session", ClientSession)
HEADERS = {"authorization": "Bearer upstream-key-0123456789", "content-type": "application/json"}


async def forward(request: web.Request) -> web.StreamResponse:
    if request.headers.get("authorization") != f"Bearer {KEY}":
        raise web.HTTPUnauthorized
    url = f"http://127.0.0.1:{UPSTREAM}{request.path}"
    async with request.app[SESSION].post(url, data=await request.read(), headers=HEADERS) as answer:
        kind = answer.headers["content-type"]
        if not kind.startswith("text/event-stream"):
            return web.Response(body=await answer.read(), status=answer.status, headers={"content-type": kind})
        response = web.StreamResponse(status=answer.status, headers={"content-type": kind})
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    connector, unlimited = TCPConnector(limit=0), ClientTimeout(total=None)
    async with ClientSession(
        connector=connector, timeout=unlimited, cookie_jar=DummyCookieJar(), auto_decompress=False
    ) as app[SESSION]:
        yield


app = web.Application(client_max_size=32 * 1024 * 1024)
app.router.add_post("/{path:.*}", forward)
app.cleanup_ctx.append(session)
web.run_app(app, host="127.0.0.1", port=PORT, access_log=None, loop=uvloop.new_event_loop(), backlog=4096, print=None)
