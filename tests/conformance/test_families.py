"""Every built-in family, and those of the pages, against the suite that is offered to everybody."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from relay.manager import Plugins
from relay.testing import FamilySuite
from tests.conformance.vectors import (
    CHAT,
    CONVERSE,
    DEMO,
    GEMINI,
    MESSAGES,
    OLLAMA,
    PARROT,
    RESPONSES,
)

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"parrot.py": "README.md", "ollama_native.py": "docs/plugins.md"}
pytestmark = pytest.mark.promise("P-08")


def from_the_pages(name: str, folder: Path) -> Path:
    """A plugin of one file as it stands in the documentation."""
    text = (ROOT / PAGES[name]).read_text(encoding="utf-8")
    found = re.search(rf"<!-- runs: {re.escape(name)} -->\n```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    file = folder / name
    file.write_text(found[1], encoding="utf-8")
    return file


class Paged(FamilySuite):
    """A family of the pages."""

    file: str

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def written(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.plugin = from_the_pages(cls.file, tmp_path_factory.mktemp("pages"))


class TestParrot(Paged):
    file = "parrot.py"
    family = "parrot"
    vectors = PARROT


class TestOllamaOfThePages(Paged):
    file = "ollama_native.py"
    family = "ollama-native"
    vectors = OLLAMA


class TestChat(FamilySuite):
    family = "openai"
    vectors = CHAT


class TestChatThatPassesThrough(FamilySuite):
    family = "openai"
    vectors = replace(CHAT, dialect="openai-chat")


class TestResponses(FamilySuite):
    family = "openai"
    vectors = RESPONSES


class TestMessages(FamilySuite):
    family = "anthropic"
    vectors = MESSAGES


class TestMessagesThatPassThrough(FamilySuite):
    family = "anthropic"
    vectors = replace(MESSAGES, dialect="anthropic-messages")


class TestGemini(FamilySuite):
    family = "gemini"
    vectors = GEMINI


class TestGeminiThatPassesThrough(FamilySuite):
    family = "gemini"
    vectors = replace(GEMINI, dialect="gemini")


class TestConverse(FamilySuite):
    family = "bedrock"
    vectors = CONVERSE


class TestConverseSigned(FamilySuite):
    family = "bedrock"
    vectors = replace(CONVERSE, secret="AKIAOFTHESUITE:secret-of-the-suite-0123456789")
    shown = "AKIAOFTHESUITE"


class TestDemo(FamilySuite):
    family = "demo"
    vectors = DEMO
    own_way = "the demo answers inside of the relay"


class TestLocal(FamilySuite):
    family = "local"
    vectors = replace(CHAT, secret="")
    own_way = "the model is a process of the relay's own"


def test_every_built_in_family_is_here() -> None:
    held = {
        suite.family
        for suite in globals().values()
        if isinstance(suite, type)
        and issubclass(suite, FamilySuite)
        and suite is not FamilySuite
        and suite is not Paged
    }
    assert held >= set(Plugins.load().families)
