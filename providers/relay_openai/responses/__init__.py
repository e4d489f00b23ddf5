"""Responses: the dialect `openai-responses`, and what hosts that speak it natively answer."""
