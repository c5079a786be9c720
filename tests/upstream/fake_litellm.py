"""A stand-in for LiteLLM where it is not installed: the few names that the adapter touches, over the official client.

Like LiteLLM it raises subclasses of the official client's exceptions, with a status code, and returns objects with
`model_dump`. What it was called with is kept in `calls`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import openai


class FakeLiteLLM(ModuleType):
    """Put it in `sys.modules["litellm"]`."""

    def __init__(self) -> None:
        super().__init__("litellm")
        self.__spec__ = ModuleSpec("litellm", None)
        self.calls: list[dict[str, Any]] = []
        self.exceptions = SimpleNamespace(BadRequestError=openai.BadRequestError)

    def completion(self, **arguments: Any) -> Any:
        settings, request = self._take(arguments)
        client = openai.OpenAI(**settings)  # closes itself when it is let go of
        with _own_exceptions():
            return client.chat.completions.create(**request)

    async def acompletion(self, **arguments: Any) -> Any:
        settings, request = self._take(arguments)
        client = openai.AsyncOpenAI(**settings)
        try:
            with _own_exceptions():
                result = await client.chat.completions.create(**request)
        except BaseException:
            await client.close()
            raise
        if request.get("stream"):
            return _Stream(client, result)
        await client.close()
        return result

    def get_llm_provider(self, model: str, api_base: str | None = None) -> tuple[str, str, None, None]:
        prefix, _, rest = model.partition("/")
        if prefix == "nosuch":
            raise _status_error(400, "LLM Provider NOT provided")
        return rest, prefix, None, None

    def _take(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        self.calls.append(dict(arguments))
        request = {**arguments, "model": arguments["model"].partition("/")[2]}
        settings = {
            "base_url": request.pop("api_base"),
            "api_key": request.pop("api_key") or "no-key",
            "timeout": request.pop("timeout"),
            "max_retries": request.pop("max_retries"),
        }
        request.pop("num_retries")
        return settings, request


class _Stream:
    def __init__(self, client: openai.AsyncOpenAI, stream: Any) -> None:
        self._client, self._stream = client, stream

    def __aiter__(self) -> Any:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        await self._stream.close()
        await self._client.close()


def _status_error(status: int, message: str) -> openai.APIStatusError:
    import httpx2

    response = httpx2.Response(status, request=httpx2.Request("POST", "http://litellm.invalid"))
    return openai.BadRequestError(message, response=response, body=None)


@contextmanager
def _own_exceptions() -> Iterator[None]:
    """LiteLLM hides that a connection failed behind a status of 500; the official exception is in the context only."""
    try:
        yield
    except openai.APITimeoutError:
        raise
    except openai.APIConnectionError as error:
        import httpx2

        response = httpx2.Response(500, request=error.request)
        raise openai.InternalServerError("Connection error.", response=response, body=None) from None
