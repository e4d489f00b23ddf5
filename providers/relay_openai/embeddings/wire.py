"""Words of the `openai-embeddings` wire format, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from relay.ir import Purpose

__all__ = ["DIALECT", "MAX_INPUTS", "PURPOSES"]

DIALECT = "openai-embeddings"

MAX_INPUTS = 2048
"""Inputs of one request: the limit of the format's inventor."""

PURPOSES: Mapping[str, Purpose] = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "classification": "classification",
    "clustering": "clustering",
    "semantic_similarity": "similarity",
}
"""The words of `input_type`, a field that several hosts have added to the format."""
