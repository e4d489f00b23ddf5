"""The clients by their dialect. A dialect that has none here yet cannot be played, and a test says so."""

from __future__ import annotations

from collections.abc import Mapping

from tests.replay.chat_client import ChatClient
from tests.replay.client import Client
from tests.replay.gemini_client import GeminiClient
from tests.replay.messages_client import MessagesClient
from tests.replay.responses_client import ResponsesClient

CLIENTS: Mapping[str, type[Client]] = {
    client.dialect: client for client in (ChatClient, ResponsesClient, MessagesClient, GeminiClient)
}
