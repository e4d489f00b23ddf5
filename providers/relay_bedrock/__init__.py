"""The family `bedrock`: models of many makers behind one API, Converse, with streams of its own binary form.

The upstream's key is a key of this service (`AWS_BEARER_TOKEN_BEDROCK`), or an access key, `NAME:SECRET`, followed by
`:TOKEN` if it is a temporary one. With an access key each request is signed. Access keys are not looked for: they open
more than this, so they have to be configured.

    [upstreams.bedrock]
    api_key = "${AWS_ACCESS_KEY_ID}:${AWS_SECRET_ACCESS_KEY}:${AWS_SESSION_TOKEN:-}"

The region is that of `AWS_REGION` or `AWS_DEFAULT_REGION`, else us-east-1; a `base_url` says it otherwise.

Settings of an upstream's `options` table:

* `region`: what requests are signed for, where `base_url` does not tell it.
* `guardrail`: table with `id`, `version` and perhaps `trace` of the guardrail that looks at each call.
* `latency`: `optimized` for faster answers at another price.
* `service_tier`: `priority`, `flex` or what else the vendor offers.
* `fields`: table of fields that are added to what each request tells the model itself.
* `profiles`: table of model names that say nothing, such as those of profiles of your own, and the model behind each.
* `cache`: whether the models take cache markers, where their names do not tell.
* `thinking`: for Claude, `adaptive`, `budget` or `none`, where the model's name does not tell.
* `max_tokens`: for Claude, the limit into which thinking has to fit where the caller sets none.
* `system_messages`: `native` sends system messages that stand between turns as such.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from relay import Family, Host, ModelListing, Target, Upstream, UpstreamRequest, hookimpl
from relay.errors import UpstreamError
from relay.events import StreamDecoder
from relay.ir import Loss, Request, Response
from relay.kit import upstream_json
from relay_bedrock import errors
from relay_bedrock.endpoint import endpoint_of
from relay_bedrock.generation import is_claude
from relay_bedrock.losses import LOSSES
from relay_bedrock.models import listing_of
from relay_bedrock.request import body_of, count_body
from relay_bedrock.response import request_id, response_of
from relay_bedrock.stream import ConverseDecoder

__all__ = ["family_of"]

REGION = "us-east-1"
MODELS = tuple(
    f"*{maker}.{model}"
    for maker, model in (("anthropic", "claude-*"), ("amazon", "nova-*"), ("meta", "llama*"), ("mistral", "*"))
)
"""Of models that are served here and, under such names, nowhere else."""


def family_of(environ: Mapping[str, str]) -> Family:
    """The family, with its host in the region that the environment names."""
    region = next((environ[name] for name in ("AWS_REGION", "AWS_DEFAULT_REGION") if environ.get(name)), REGION)
    return Family(
        "bedrock",
        hosts=(
            Host(
                "bedrock",
                f"https://bedrock-runtime.{region}.amazonaws.com",
                env=("AWS_BEARER_TOKEN_BEDROCK",),
                base_url_env=("AWS_ENDPOINT_URL_BEDROCK_RUNTIME",),
                models=MODELS,
            ),
        ),
        capabilities={
            "chat": True,
            "streaming": True,
            "function_calling": True,
            "structured_output": True,
        },
        losses=LOSSES,
        options=frozenset(
            {
                "region",
                "guardrail",
                "latency",
                "service_tier",
                "fields",
                "profiles",
                "cache",
                "thinking",
                "max_tokens",
                "system_messages",
            }
        ),
    )


@hookimpl
def relay_families() -> Sequence[Family]:
    """The one family of this plugin."""
    return [family_of(os.environ)]


@hookimpl
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """A `converse` body."""
    return body_of(request, target, losses)


@hookimpl
def count_request(request: Request, target: Target) -> bytes:
    """A `count-tokens` body."""
    return count_body(request, target)


@hookimpl
def count_response(body: bytes) -> Any:
    """Its `inputTokens`."""
    return upstream_json(body).get("inputTokens")


@hookimpl
def endpoint(target: Target, operation: str, body: bytes, stream: bool) -> UpstreamRequest:
    """`model/NAME/converse`, its streaming twin or `count-tokens`, signed or with the service's key."""
    return endpoint_of(target, operation, body, stream)


@hookimpl
def translate_response(target: Target, headers: Mapping[str, str], body: bytes) -> Response:
    """A complete answer."""
    return response_of(target, headers, body)


@hookimpl
def translate_stream(target: Target, headers: Mapping[str, str]) -> StreamDecoder:
    """A decoder for one stream."""
    return ConverseDecoder(request_id(headers), target.model, claude=is_claude(target))


@hookimpl
def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The vendor's error, in its own words."""
    return errors.translate_error(target, status, headers, body)


@hookimpl
def list_models(upstream: Upstream) -> ModelListing:
    """`foundation-models` and `inference-profiles`."""
    return listing_of(upstream)
