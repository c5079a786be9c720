"""The OpenAI-compatible server: one room per step of a request's way, put together in `app.py`."""
