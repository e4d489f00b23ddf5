"""What well-known models can do, by patterns of their names, for hosts that list nothing but names.

Patterns are `fnmatch` patterns on the lower-cased name without its vendor's prefix (`openai/gpt-4o` is `gpt-4o`). The
first that matches counts, so that exceptions stand before their rule. A capability that a row does not mention is
unknown, which is not the same as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

__all__ = ["FIXED_SAMPLING", "capabilities_of"]

FIXED_SAMPLING: tuple[str, ...] = (
    "o1",
    "o1-*",
    "o3",
    "o3-*",
    "o4-mini*",
    "gpt-5",
    "gpt-5-mini*",
    "gpt-5-nano*",
    "gpt-5-20*",
)
"""Models whose host answers 400 to any temperature but 1, and to the parameters like it."""

_TEXT = {"chat": True, "streaming": True}
_TOOLS = {**_TEXT, "function_calling": True}
_PLAIN = {**_TOOLS, "reasoning": False}
_STRUCTURED = {**_TOOLS, "structured_output": True}
_SEEING = {**_STRUCTURED, "vision": True}
_THINKING = {**_STRUCTURED, "reasoning": True}
_ALL = {**_SEEING, "reasoning": True}
_NO_CHAT = {"chat": False, "streaming": False}
_EMBEDDING = {**_NO_CHAT, "embeddings": True}

_PATTERNS: tuple[tuple[str, Mapping[str, bool]], ...] = (
    ("*embed*", _EMBEDDING),
    ("bge-*", _EMBEDDING),
    ("gte-*", _EMBEDDING),
    ("e5-*", _EMBEDDING),
    ("multilingual-e5-*", _EMBEDDING),
    ("all-minilm*", _EMBEDDING),
    ("voyage-*", _EMBEDDING),
    ("whisper*", _NO_CHAT),
    ("tts-*", _NO_CHAT),
    ("*-tts*", _NO_CHAT),
    ("dall-e*", _NO_CHAT),
    ("gpt-image*", _NO_CHAT),
    ("sora*", _NO_CHAT),
    ("*moderation*", _NO_CHAT),
    ("*-transcribe*", _NO_CHAT),
    ("*-realtime*", _NO_CHAT),
    ("*rerank*", _NO_CHAT),
    ("*stable-diffusion*", _NO_CHAT),
    ("flux*", _NO_CHAT),
    ("babbage-*", {**_NO_CHAT, "completion": True}),
    ("davinci-*", {**_NO_CHAT, "completion": True}),
    ("gpt-3.5-turbo-instruct*", {**_NO_CHAT, "completion": True}),
    ("gpt-audio*", {**_TOOLS, "audio": True, "reasoning": False}),
    ("gpt-4o*-audio*", {**_TOOLS, "audio": True, "reasoning": False}),
    ("gpt-3.5*", _PLAIN),
    ("gpt-4o*", {**_SEEING, "reasoning": False}),
    ("chatgpt-4o*", {**_TEXT, "vision": True, "reasoning": False}),
    ("gpt-4.1*", {**_SEEING, "reasoning": False}),
    ("gpt-4.5*", {**_SEEING, "reasoning": False}),
    ("gpt-4-turbo*", {**_PLAIN, "vision": True}),
    ("gpt-4*", _PLAIN),
    ("gpt-5*-chat*", {**_SEEING, "reasoning": False}),
    ("gpt-5*", _ALL),
    ("gpt-oss*", _THINKING),
    ("o1-mini*", {**_TEXT, "reasoning": True}),
    ("o1-preview*", {**_TEXT, "reasoning": True}),
    ("o3-mini*", _THINKING),
    ("o1*", _ALL),
    ("o3*", _ALL),
    ("o4*", _ALL),
    ("claude-3-5*", {**_TOOLS, "vision": True, "reasoning": False}),
    ("claude-3-7*", {**_TOOLS, "vision": True, "reasoning": True}),
    ("claude-3*", {**_TOOLS, "vision": True, "reasoning": False}),
    ("claude-*", {**_TOOLS, "vision": True, "reasoning": True}),
    ("gemini-1*", {**_SEEING, "audio": True, "reasoning": False}),
    ("gemini-2.0*", {**_SEEING, "audio": True}),
    ("gemini-*", {**_ALL, "audio": True}),
    ("gemma-3*", {**_TEXT, "vision": True}),
    ("gemma*", _TEXT),
    ("grok-2-vision*", _SEEING),
    ("grok-2*", {**_STRUCTURED, "reasoning": False}),
    ("grok-3-mini*", _THINKING),
    ("grok-3*", {**_STRUCTURED, "reasoning": False}),
    ("grok-4*", _ALL),
    ("deepseek-reasoner*", {**_TOOLS, "reasoning": True}),
    ("deepseek-r1*", {**_TEXT, "reasoning": True}),
    ("deepseek-*", _TOOLS),
    ("mistral-large*", _STRUCTURED),
    ("mistral-medium*", _SEEING),
    ("mistral-small*", _SEEING),
    ("magistral*", {**_STRUCTURED, "reasoning": True}),
    ("pixtral*", _SEEING),
    ("codestral*", _STRUCTURED),
    ("devstral*", _STRUCTURED),
    ("ministral*", _STRUCTURED),
    ("mixtral*", _TOOLS),
    ("mistral-7b*", _TEXT),
    ("llama-4*", {**_TOOLS, "vision": True, "reasoning": False}),
    ("llama-3.2-*vision*", {**_TEXT, "vision": True, "reasoning": False}),
    ("llama-3.[1-9]*", _PLAIN),
    ("llama-guard*", {**_TEXT, "function_calling": False}),
    ("qwq*", {**_TOOLS, "reasoning": True}),
    ("qwen*-vl*", {**_TOOLS, "vision": True}),
    ("qwen3*thinking*", {**_TOOLS, "reasoning": True}),
    ("qwen3*instruct*", {**_TOOLS, "reasoning": False}),
    ("qwen*", _TOOLS),
    ("glm-*v*", {**_TOOLS, "vision": True, "reasoning": True}),
    ("glm-4.[5-9]*", {**_TOOLS, "reasoning": True}),
    ("glm-[5-9]*", {**_TOOLS, "reasoning": True}),
    ("kimi-k2-thinking*", {**_TOOLS, "reasoning": True}),
    ("kimi-*", _TOOLS),
    ("moonshot-v1*vision*", {**_TOOLS, "vision": True}),
    ("moonshot-v1*", _PLAIN),
    ("minimax-m*", {**_TOOLS, "reasoning": True}),
    ("sonar*reasoning*", {**_TEXT, "reasoning": True}),
    ("sonar-deep-research*", {**_TEXT, "reasoning": True}),
    ("sonar*", {**_TEXT, "structured_output": True, "reasoning": False}),
    ("command-*", _TOOLS),
    ("smollm*", _TEXT),
    ("phi-*", _TEXT),
)


def capabilities_of(model: str) -> Mapping[str, bool]:
    """What a model of that name can do, as far as it is known; empty if nothing is."""
    name = model.lower().rsplit("/", 1)[-1]
    return next((known for pattern, known in _PATTERNS if fnmatchcase(name, pattern)), {})
