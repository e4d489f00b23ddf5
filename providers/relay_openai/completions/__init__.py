"""The legacy Completions API: the dialect `openai-completions`, a prompt in and a text out."""
