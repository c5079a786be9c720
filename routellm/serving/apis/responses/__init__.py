"""OpenAI's responses: passed through, or translated to chat completions and back."""
