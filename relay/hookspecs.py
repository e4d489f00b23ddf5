"""Every hook of the relay, typed and documented: this module is the plugin contract.

A plugin is a module (or object) with functions marked by `relay.hookimpl`, named as here. It may take any subset of a
hook's arguments, by name; arguments may be added to hooks in later versions and are never renamed. Plugins are found
through the entry point group `i8relay` or in the configured drop-in folder. All functions are plain functions, not
coroutines, except where a return type says `Awaitable`.

Translation hooks are asked only of the plugin that registered the target's family, so they need no check of whose turn
it is. They do no I/O, and none is called once per streamed chunk: `translate_stream` is called once per stream and
returns the decoder.

Where these hooks take a `dialect`, it is the caller's if the call passes through untouched: the body is in that format,
and so is the answer. It is empty where the relay translates: then both are in the family's own format.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from relay.app import Relay
    from relay.dialect import Dialect
    from relay.errors import UpstreamError
    from relay.events import StreamDecoder, StreamMeter
    from relay.family import Family, Model, ModelListing, Target, TargetOrder, Upstream, UpstreamRequest
    from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Request, Response, Usage
    from relay.policy import CallPolicy
    from relay.pricing import Price

PROJECT = "i8relay"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

__all__ = ["PROJECT", "hookimpl", "hookspec"]


# Registration: asked of every plugin, once, at start.


@hookspec
def relay_families(options: Mapping[str, Any]) -> Sequence[Family]:
    """The upstream families this plugin serves. `options` is the plugin's own table of the configuration."""
    raise AssertionError("a specification, not an implementation")


@hookspec
def relay_dialects(options: Mapping[str, Any]) -> Sequence[Dialect]:
    """The client dialects this plugin speaks."""
    raise AssertionError("a specification, not an implementation")


@hookspec
def relay_lifespan(relay: Relay, options: Mapping[str, Any]) -> AbstractAsyncContextManager[None] | None:
    """Something to run while the relay serves: entered before the first request, left after the last."""
    raise AssertionError("a specification, not an implementation")


@hookspec
def order_targets(options: Mapping[str, Any]) -> TargetOrder | None:
    """A policy for the order in which a model's targets are tried. None: there is none, which costs no call anything.

    Asked once, at start. The policies of several plugins come one after the other, each with what the last one left.
    """
    raise AssertionError("a specification, not an implementation")


@hookspec
def on_call(options: Mapping[str, Any]) -> CallPolicy | None:
    """A say in calls, once they have passed their key, their rights and their limits: answer one, or refuse it.

    None: there is none, which costs no call anything. Asked once, at start. The policies of several plugins come one
    inside of the other, in the order in which the plugins were loaded.
    """
    raise AssertionError("a specification, not an implementation")


@hookspec
def relay_commands(commands: click.Group) -> None:
    """Add commands to the `relay` program.

    Only plugins are imported for it whose module has this name in its source, or may get it by `import *`. Those keep
    `relay --help` waiting, so such a module does well to import what its commands need when one of them runs. One that
    fails is named on standard error, and costs the others nothing.
    """
    raise AssertionError("a specification, not an implementation")


# Translation: asked of the target family's own plugin.


@hookspec(firstresult=True)
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes | None:
    """The request's body in the family's own format.

    Not called when the caller already speaks a dialect of the upstream. What the family cannot carry is appended to
    `losses`; what makes the request meaningless without it is raised as `Unsupported`.
    """
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def endpoint(
    target: Target, operation: str, body: bytes, stream: bool, headers: Mapping[str, str], dialect: str
) -> UpstreamRequest | Awaitable[UpstreamRequest] | None:
    """Where and how to send `body`: URL, headers, credential, signature.

    `headers` are the caller's headers that its dialect lets through (passed-through calls only; else empty).
    """
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def translate_response(
    target: Target, status: int, headers: Mapping[str, str], body: bytes, dialect: str
) -> Response | None:
    """A complete answer as a hub value. Raises UpstreamError if a 2xx body holds an error, or is not the protocol."""
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def translate_stream(target: Target, headers: Mapping[str, str], dialect: str) -> StreamDecoder | None:
    """A new decoder for one streamed answer. Called once per stream."""
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def meter_response(target: Target, headers: Mapping[str, str], body: bytes, dialect: str) -> Usage | None:
    """What a complete answer that passes through used, read with less work than `translate_response`.

    Optional. Raises UpstreamError as that does. None, or a count without both totals: `translate_response` is asked.
    """
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def meter_stream(target: Target, headers: Mapping[str, str], dialect: str) -> StreamMeter | None:
    """A new meter for one stream that passes through. Optional; None: the stream's decoder counts.

    Where the arguments of tools are checked, only one that puts calls together counts (`relay.events.KeepsCalls`).
    """
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def count_request(request: Request, target: Target) -> bytes | None:
    """The body that asks the upstream how many tokens a request has; `endpoint` is then asked for `count_tokens`.

    Optional. None: it cannot tell, and the relay estimates. Called for callers of other dialects only.
    """
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def count_response(target: Target, body: bytes) -> int | None:
    """The number in the answer to that. None: there is none. Needed with `count_request`."""
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def translate_embedding_request(request: EmbeddingRequest, target: Target, losses: list[Loss]) -> bytes | None:
    """The body of a request for vectors in the family's own format; `endpoint` is then asked for `embeddings`.

    Optional. None: the target makes none, and the caller is told so before anything is sent. Losses and `Unsupported`
    as in `translate_request`.
    """
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def translate_embedding_response(
    target: Target, status: int, headers: Mapping[str, str], body: bytes, dialect: str
) -> EmbeddingResponse | None:
    """The vectors of an answer, in the order of the inputs. Raises UpstreamError as `translate_response`.

    Goes with `translate_embedding_request`. Vectors that pass through are asked of `meter_response` first.
    """
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError | None:
    """What an answer with a status of 400 or more means. None: the relay judges by the status alone."""
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def list_models(upstream: Upstream) -> ModelListing | Sequence[Model] | None:
    """The models of one upstream: a list known by heart, or how to ask for it."""
    raise AssertionError("a specification, not an implementation")


# Policy: asked of every plugin.


@hookspec(firstresult=True)
def price(target: Target, at: int) -> Price | None:
    """What the target costs at the Unix second `at`. Prices in the configuration come before this hook."""
    raise AssertionError("a specification, not an implementation")


@hookspec(firstresult=True)
def describe(target: Target) -> Model | None:
    """What is known of a model beyond what its upstream tells: its context length, most of all.

    Only fields that are not None count, and only where neither the configuration nor the upstream's own list says
    anything. The answer's `id` is the target's model name. Asked at start and after each listing, never per call.
    """
    raise AssertionError("a specification, not an implementation")
