"""Requests of every kind, for whoever has to write them."""

from __future__ import annotations

from collections.abc import Iterator

from relay.ir import (
    Media,
    Message,
    Output,
    Part,
    Reasoning,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

__all__ = ["questions"]

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="


def questions() -> Iterator[tuple[str, Request]]:
    """Requests of every kind, each with what it is."""

    def user(*parts: str | Part) -> Message:
        return Message("user", [Text(part) if isinstance(part, str) else part for part in parts])

    hello = [user("Hello")]
    yield "one turn", Request("m", hello)
    yield "streamed", Request("m", hello, stream=True)
    yield "a system prompt", Request("m", [Message("system", [Text("Be brief.")]), *hello])
    yield "several turns", Request("m", [*hello, Message("assistant", [Text("Hi!")]), user("And now?")])
    yield "a late system message", Request("m", [*hello, Message("system", [Text("Louder.")]), user("Well?")])
    yield "any script", Request("m", [user("\u4f60\u597d \U0001f642 \u2028 \x00 \ud7ff")])
    yield "nothing said", Request("m", [user("")])
    sampling = Sampling(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop=["END"],
        seed=7,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=True,
        top_logprobs=2,
    )
    yield "all about sampling", Request("m", hello, sampling=sampling)
    yield "several choices", Request("m", hello, sampling=Sampling(choices=2))
    yield "JSON", Request("m", hello, output=Output("json"))
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    yield "a schema", Request("m", hello, output=Output("schema", schema, "thing", strict=True))
    yield "reasoning", Request("m", hello, reasoning=Reasoning(effort="low"))
    thoughts: list[Part] = [Thinking("Hm.", signature="s", dialect="another-dialect"), Text("Hi!")]
    yield "somebody else's thoughts", Request("m", [*hello, Message("assistant", thoughts), user("Go on")])
    yield "somebody's name", Request("m", [Message("user", [Text("Hello")], name="ann")], user="u-1")
    yield "a vendor's field", Request("m", hello, extra={"another-dialect": {"knob": 1}})
    yield "a picture", Request("m", [user("Look", Media("image", "image/png", data=PICTURE))])
    yield "a picture elsewhere", Request("m", [user("Look", Media("image", url="https://pictures.test/a.png"))])
    yield "a document", Request("m", [user("Read", Media("document", "application/pdf", data="JVBERi0xLjQ="))])
    look = Tool("look", "Look something up", {"type": "object", "properties": {"place": {"type": "string"}}})
    yield "a tool", Request("m", hello, tools=[look])
    yield "a tool that must be called", Request("m", hello, tools=[look], tool_choice=ToolChoice("tool", "look"))
    call = ToolCall("call_1", "look", '{"place": "here",  "n": 1e2}')
    result = ToolResult("call_1", [Text("Nothing there.")])
    asked = [*hello, Message("assistant", [call]), Message("user", [result])]
    yield "a tool's result", Request("m", asked, tools=[look])
    failed = ToolResult("call_1", [Text("It broke.")], is_error=True)
    yield "a tool's fault", Request("m", [*asked[:2], Message("user", [failed])], tools=[look])
    odd = Message("assistant", [ToolCall("call_1", "look", "not JSON")])
    yield "arguments that are none", Request("m", [*hello, odd, Message("user", [result])], tools=[look])
