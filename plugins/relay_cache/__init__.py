"""Give an answer again to whoever asks the very same question: kept in memory, bounded in bytes and age.

Off unless the configuration switches it on:

    [plugins.options.cache]
    enabled = true
    models = ["gpt-4o*"]      # the models whose answers are kept; left out: all
    keys = ["ci", "test-*"]   # the names of the keys that get them; left out: all
    seconds = 3600            # how long an answer is given again
    megabytes = 64            # all of them together; the ones not used for longest go first
    largest_kilobytes = 1024  # of one answer
    shared = false            # true: keys get each other's answers, to questions without tools
    coalesce = false          # true: of several that ask the same at a time one is asked, and the others wait
    wait_seconds = 30         # for so long at most, and then ask themselves

What makes two questions the same, and what is kept, is in `question` and `policy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay import CallPolicy, hookimpl

__all__: list[str] = []


@hookimpl
def on_call(options: Mapping[str, Any]) -> CallPolicy | None:
    """The cache, where it is switched on."""
    # Imported where it is switched on, which is seldom.
    from relay_cache.settings import read_settings

    settings = read_settings(options)
    if not settings.enabled:
        return None
    from relay_cache.policy import AnswerCache

    return AnswerCache(settings)
