"""Counting streams that pass through."""

from __future__ import annotations

from relay.skim import SkimmingMeter
from relay_anthropic.mould import delta_mould
from relay_anthropic.stream import MessagesDecoder

__all__ = ["messages_meter"]


def messages_meter() -> SkimmingMeter:
    """A meter that decodes what is no plain delta."""
    return SkimmingMeter(MessagesDecoder(), delta_mould)
