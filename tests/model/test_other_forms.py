"""The real model asked for vectors and for plain texts. What it says is nonsense; how it says it is not."""

from __future__ import annotations

import math

import openai
import pytest
from openai import AsyncOpenAI

from tests.flow.conftest import Running
from tests.model.conftest import MODEL
from tests.model.test_model import FINISHES, check_row, newest

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]


async def test_vectors_of_like_texts_point_the_same_way(local: Running, sdk: AsyncOpenAI) -> None:
    texts = ["The cat sleeps on the sofa.", "A cat is sleeping on a couch.", "SELECT id FROM t WHERE x > 5;"]
    shown = await sdk.embeddings.create(model=MODEL, input=texts)
    first, like, unlike = (row.embedding for row in shown.data)
    assert len(first) == len(unlike) == 576
    assert math.isclose(sum(number * number for number in first), 1, abs_tol=1e-3)
    near = sum(a * b for a, b in zip(first, like, strict=True))
    far = sum(a * b for a, b in zip(first, unlike, strict=True))
    assert near > far
    (row,) = await newest(local)
    assert row.usage is not None
    assert (row.operation, row.outcome, row.usage_source, row.cost) == ("embeddings", "ok", "provider", 0)
    assert (row.usage.input, row.usage.output) == (shown.usage.prompt_tokens, 0)


async def test_a_client_of_another_shape_gets_the_same_vectors(local: Running, sdk: AsyncOpenAI) -> None:
    shown = await sdk.embeddings.create(model=MODEL, input="hello", encoding_format="float")
    path = f"{local.url}/v1beta/models/{MODEL}:embedContent"
    async with local.client.post(path, json={"content": {"parts": [{"text": "hello"}]}}) as response:
        values = (await response.json())["embedding"]["values"]
    assert values == pytest.approx(shown.data[0].embedding, abs=1e-4)


async def test_a_text_that_is_too_long_for_one_vector_is_an_error(local: Running, sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="too large"):
        await sdk.embeddings.create(model=MODEL, input="word " * 3000)


async def test_plain_texts_whole_and_streamed(local: Running, sdk: AsyncOpenAI) -> None:
    whole = await sdk.completions.create(model=MODEL, prompt="Once upon a", max_tokens=8, temperature=0)
    assert whole.choices[0].finish_reason in FINISHES
    check_row((await newest(local))[0], whole.usage, stream=False)
    text, usage = "", None
    async for chunk in await sdk.completions.create(
        model=MODEL,
        prompt="Once upon a",
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = chunk.usage or usage
        text += "".join(choice.text for choice in chunk.choices)
    assert text == whole.choices[0].text
    (row,) = await newest(local)
    check_row(row, usage, stream=True)
    assert row.dialect == "openai-completions"
