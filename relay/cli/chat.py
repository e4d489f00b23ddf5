"""`relay chat`: a conversation in the terminal, streamed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli.database import database_file, database_option
from relay.cli.options import fail

if TYPE_CHECKING:
    from relay.client import Client

__all__ = ["chat"]

DEFAULT_URL = "http://127.0.0.1:8748"
BORROWED_MINUTES = 60
"""Life of the key that is made when none was given, should its removal at the end not happen."""


@click.command()
@click.argument("prompt", nargs=-1)
@click.option("-m", "--model", help="Model [default: the first that the relay lists]")
@click.option("-s", "--system", help="System prompt")
@click.option("--url", envvar="I8RELAY_URL", default=DEFAULT_URL, show_default=True, help="The relay [$I8RELAY_URL]")
@click.option("--key", envvar="I8RELAY_KEY", help="API key [$I8RELAY_KEY; default: one made for this chat only]")
@database_option
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer, in tokens")
@click.option("--temperature", type=click.FloatRange(0, 2))
@click.option("--usage", "show_usage", is_flag=True, help="Show the tokens of each answer on stderr.")
def chat(
    prompt: tuple[str, ...],
    model: str | None,
    system: str | None,
    url: str,
    key: str | None,
    db: Path | None,
    max_tokens: int | None,
    temperature: float | None,
    show_usage: bool,
) -> None:
    """Ask PROMPT and print the answer as it comes; without PROMPT, hold a conversation (end it with Ctrl-D).

    Text that is piped in is put before PROMPT. Failures that may pass are tried again, with growing waits.
    """
    question = " ".join(prompt)
    if not sys.stdin.isatty():
        piped = sys.stdin.read().strip()
        question = f"{piped}\n\n{question}".strip()
        if not question:
            fail("nothing to ask: give a prompt, or pipe one in")
    settings = {"max_tokens": max_tokens, "temperature": temperature}
    talk = _Talk(model, system, {name: value for name, value in settings.items() if value is not None}, show_usage)
    try:
        asyncio.run(_run(talk, question, url, key, db))
    except KeyboardInterrupt:
        click.echo("", err=True)
        sys.exit(130)


class _Talk:
    """A conversation so far."""

    def __init__(self, model: str | None, system: str | None, settings: dict[str, Any], show_usage: bool) -> None:
        self.model = model
        self.settings = settings
        self.show_usage = show_usage
        self.messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []

    async def ask(self, client: Client, question: str) -> None:
        """One question and its answer, printed as it comes."""
        self.messages.append({"role": "user", "content": question})
        body = {
            "model": self.model,
            "messages": self.messages,
            "stream_options": {"include_usage": True},
            **self.settings,
        }
        answer = ""
        usage: dict[str, Any] | None = None
        async for chunk in client.chat(body):
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", ()):
                text = choice.get("delta", {}).get("content") or ""
                answer += text
                click.echo(text, nl=False)
                sys.stdout.flush()
        click.echo()
        self.messages.append({"role": "assistant", "content": answer})
        if self.show_usage and usage:
            click.echo(f"[{usage.get('prompt_tokens')} tokens in, {usage.get('completion_tokens')} out]", err=True)


async def _run(talk: _Talk, question: str, url: str, key: str | None, db: Path | None) -> None:
    from relay.client import Client, ClientError

    async with contextlib.AsyncExitStack() as stack:
        secret = key if key else await stack.enter_async_context(_borrowed_key(db))
        client = await stack.enter_async_context(Client(url, secret))
        client.notice = lambda text: click.echo(text, err=True)
        try:
            if talk.model is None:
                names = await client.models()
                if not names:
                    fail("the relay serves no model")
                talk.model = names[0]
            if question:
                await talk.ask(client, question)
                return
        except ClientError as error:
            fail(f"error: {error}")
        await _converse(talk, client)


async def _converse(talk: _Talk, client: Client) -> None:
    from relay.client import ClientError

    click.echo(f"{talk.model}; end with Ctrl-D.", err=True)
    while True:
        try:
            question = await asyncio.to_thread(input, "> ")
        except EOFError:
            click.echo("", err=True)
            return
        if not question.strip():
            continue
        kept = len(talk.messages)
        try:
            await talk.ask(client, question)
        except ClientError as error:
            # The question that failed is not part of the conversation; the next one is asked as if it had not been.
            del talk.messages[kept:]
            click.echo(f"error: {error}", err=True)


@contextlib.asynccontextmanager
async def _borrowed_key(db: Path | None) -> AsyncIterator[str]:
    """A key for this chat only: whoever can write the relay's file may use the relay."""
    from relay.store import Store, StoreError
    from relay.store.keys import now_ms

    path = database_file(db)
    if not path.exists():
        fail(f"there is no relay database at {path}; give --key, --db, or start the relay first (relay serve)")
    try:
        store = await Store.open(path)
    except StoreError as error:
        fail(str(error))
    try:
        name = f"relay chat ({os.getpid()}, {now_ms()})"
        row, secret = await store.keys.create(name, expires_at=now_ms() + BORROWED_MINUTES * 60_000)
        try:
            yield secret
        finally:
            await store.keys.revoke(row.id)
    except StoreError as error:
        fail(str(error))
    finally:
        await store.close()
