"""Embeddings: the dialect `openai-embeddings`, and how the family's hosts are asked for vectors by other dialects."""
