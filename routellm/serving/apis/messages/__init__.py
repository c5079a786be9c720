"""Anthropic's messages: passed through, or translated to chat completions and back."""
