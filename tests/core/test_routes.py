"""Paths are told apart as aiohttp's router does it, or left to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from relay.dialect import Dialect, Route
from relay.routes import Routes
from relay_anthropic.dialect import AnthropicMessages
from relay_gemini.dialect import GenerateContent
from relay_openai.completions.dialect import OpenAICompletions
from relay_openai.dialect import OpenAIChat
from relay_openai.embeddings.dialect import OpenAIEmbeddings
from relay_openai.responses.dialect import OpenAIResponses

DIALECTS: list[Dialect] = [
    OpenAIChat(),
    OpenAIResponses(),
    OpenAICompletions(),
    OpenAIEmbeddings(),
    AnthropicMessages(),
    GenerateContent(),
]
ROUTES = Routes(DIALECTS)


async def whose(dialect: Dialect, route: Route, request: web.Request) -> web.StreamResponse:
    raise AssertionError("nobody asks")


def application() -> web.Application:
    app = web.Application()
    for dialect in DIALECTS:
        for route in dialect.routes:
            app.router.add_route(route.method, route.path, partial(whose, dialect, route))
    return app


APP = application()


def routed(path: str) -> tuple[Dialect, Route, Mapping[str, str]] | None:
    """What aiohttp's router makes of it."""
    request = make_mocked_request("POST", path)
    match = asyncio.run(APP.router.resolve(request))
    if not isinstance(match.handler, partial):
        return None
    dialect, route = match.handler.args
    asked = {name: request.query[name] for name in route.query if name in request.query}
    return dialect, route, {**asked, **match}


PATHS = {
    "/v1/chat/completions": {},
    "/v1/messages": {},
    "/v1/responses": {},
    "/v1beta/models/gemini-2.5-pro:generateContent": {"collection": "models", "model": "gemini-2.5-pro"},
    "/v1/tunedModels/a/b:generateContent": {"collection": "tunedModels", "model": "a/b"},
    "/v1beta/models/m:streamGenerateContent": {
        "collection": "models",
        "model": "m",
        "stream": "streamGenerateContent",
    },
    "/v1beta/models/m:streamGenerateContent?alt=sse": {
        "collection": "models",
        "model": "m",
        "stream": "streamGenerateContent",
        "alt": "sse",
    },
}


@pytest.mark.parametrize("path", PATHS)
def test_plain_paths_are_known(path: str) -> None:
    found = ROUTES.find(path)
    assert found is not None
    assert found[1] == PATHS[path]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/embeddings",
        "/v1/messages/count_tokens",
        "/v1/responses/resp_1/cancel",
        "/v1beta/models/m:countTokens",
        "/v1beta/models/m:embedContent",
        "/v1beta/models/m%2Fn:generateContent",
        "/v1beta/models/m%3AgenerateContent",
        "/v1beta/models/../models/m:generateContent",
        "/v1beta/models/./m:generateContent",
        "/v1beta//models/m:generateContent",
        "/v1beta/models/m:generateContent/",
        "/v1beta/models/m:streamGenerateContent?alt=sse&alt=json",
        "/v1beta/models/m:streamGenerateContent?alt=%73se",
        "/v1beta/models/m:streamGenerateContent?alt=s+e",
        "/v1beta/models/m:streamGenerateContent?key=sk",
        "/v1beta/models/m:generateContent?alt=sse",
        "/v1/chat/completions?a=b",
        "/v1/chat/completions/",
        "/v1/chat/completions#part",
        "/v1/nothing",
        "",
        "*",
    ],
)
def test_all_others_are_left_to_the_router(path: str) -> None:
    assert ROUTES.find(path) is None


PIECES = st.sampled_from(
    [
        *("/v1", "/v1beta", "/models", "/tunedModels", "/m", "/a.b", "/..", "/.", "//", "/", ":", "%3A", "%2F"),
        *("/chat/completions", "/messages", "/count_tokens", "/responses", "/embeddings", ":generateContent"),
        *(
            ":streamGenerateContent",
            ":countTokens",
            "?",
            "&",
            "=",
            "alt",
            "sse",
            "alt=sse",
            "key=k",
            "+",
            "a",
            "é",
            ";",
        ),
    ]
)


@given(st.lists(PIECES, min_size=1, max_size=8).map("".join))
def test_what_is_found_is_what_the_router_finds(path: str) -> None:
    found = ROUTES.find(path)
    if found is not None:
        known = routed(path)
        assert known is not None
        dialect, route, place = known
        assert (dialect, route.operation, place) == (found[0], "generate", found[1])
