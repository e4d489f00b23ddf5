"""The known hosts: rows of `hosts.toml`, checked and made into `Host` values."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from relay import Host

__all__ = ["FIELDS", "OPTIONS", "known_hosts", "placeholders"]

OPTIONS: Mapping[str, str] = {
    "auth": 'Header that carries the key: "bearer" (the default), or a name such as "api-key".',
    "query": "Table of parameters added to every URL, such as an api-version.",
    "default_path": "Path that belongs to a base_url which was given without any.",
    "default_port": "Port of a base_url that was given with neither port nor path.",
    "models_path": 'Where the model list is below base_url, or with a leading slash below its host; "" if nowhere.',
    "completions_path": "Where legacy completions are, written in the same way, if not at completions below base_url.",
    "embeddings_path": "Where embeddings are, written in the same way, if not at embeddings below base_url.",
    "include_usage": "false for a host that refuses stream_options.",
    "reasoning_memory": "true for a host that wants its reasoning back with the results of tools, whatever clients do.",
    "finish_reason": "false for a host whose streams never say why the model stopped.",
    "max_tokens_field": 'Name of the limit of output: "max_tokens" (the default) or "max_completion_tokens".',
    "developer_role": "true if the host tells developer messages from system messages; else they are sent as system.",
    "cache_control": "true if the host takes cache markers on parts and tools.",
    "json_schema": "false for a host that knows JSON answers, but none by a schema.",
    "reasoning": 'How reasoning is asked for: "effort" (the default), "object", "thinking" or "none".',
    "tool_id_length": "Length of the ids of tool calls, for a host that insists on one.",
    "top_k": "true if the host has this parameter.",
    "drop": "Fields that the host refuses.",
    "rename": "Table of fields that the host knows by another name.",
}
"""Settings of `[upstreams.NAME.options]` for this family, all of them about how a host deviates.

Those from `max_tokens_field` on only shape bodies that the relay translates; a caller of the same dialect is passed
through as it is.
"""

FIELDS = frozenset(
    (
        "name",
        "base_url",
        "env",
        "base_url_env",
        "probe",
        "probe_key",
        "fallback",
        "models",
        "dialects",
        "capabilities",
        "options",
    )
)
_PLACEHOLDER = re.compile(r"\{([A-Z][A-Z0-9_]*)\}")


def placeholders(base_url: str) -> list[str]:
    """The environment variables that an address still needs: `{ACCOUNT_ID}`."""
    return _PLACEHOLDER.findall(base_url)


def known_hosts(environ: Mapping[str, str] = os.environ) -> list[Host]:
    """All rows.

    Where an address holds a customer's account, it stands as `{VARIABLE}` and is filled in from `environ`. Without it a
    key alone is of no use, so the host is then not found by its key and has to be configured with its address.
    """
    return [_host(row, environ) for row in _rows()]


@cache
def _rows() -> Sequence[Mapping[str, Any]]:
    """What is in the file, read once."""
    path = Path(__file__).with_name("hosts.toml")
    rows: Sequence[Mapping[str, Any]] = tomllib.loads(path.read_text("utf-8"))["host"]
    return rows


def _host(row: Mapping[str, Any], environ: Mapping[str, str]) -> Host:
    base_url = _PLACEHOLDER.sub(lambda match: environ.get(match[1], "").strip() or match[0], row["base_url"])
    moved = any(environ.get(name, "").strip() for name in row.get("base_url_env", ()))
    dialects = row.get("dialects")
    return Host(
        name=row["name"],
        base_url=base_url,
        env=() if placeholders(base_url) and not moved else tuple(row.get("env", ())),
        base_url_env=tuple(row.get("base_url_env", ())),
        probe=row.get("probe", ""),
        probe_key=row.get("probe_key", ""),
        fallback=row.get("fallback", 0),
        models=tuple(row.get("models", ())),
        dialects=None if dialects is None else frozenset(dialects),
        capabilities=row.get("capabilities", {}),
        options=row.get("options", {}),
    )
