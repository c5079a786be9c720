"""The official OpenAI client through a running server: `python -m examples.openai_client [BASE_URL]`.

Start the server first, in another terminal; without any key in the environment it serves the offline demo pair:

    python -m routellm.openai_server --routers mf
"""

from __future__ import annotations

import sys

import openai

DEFAULT_URL = "http://127.0.0.1:6060/v1"


def main(base_url: str = DEFAULT_URL) -> None:
    """Ask once for a whole answer and once for a stream; show which model answered, and why."""
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        print("served:", ", ".join(model.id for model in client.models.list()))

        # The only line that differs from a call without routing: `model` names a router and its threshold.
        reply = client.chat.completions.create(model="router-mf-0.2", messages=[{"role": "user", "content": "Hello!"}])
        print(f"{reply.model}: {reply.choices[0].message.content}")

        # The decision is in the headers of the reply.
        raw = client.chat.completions.with_raw_response.create(
            model="router-mf-0.2",
            messages=[{"role": "user", "content": "Prove that the square root of 2 is irrational."}],
            stream=True,
        )
        print(f"{raw.headers['x-routellm-model']} (win rate {raw.headers['x-routellm-win-rate']}): ", end="")
        for chunk in raw.parse():
            print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
        print()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except openai.APIConnectionError:
        raise SystemExit("No server answers there. Start one: python -m routellm.openai_server --routers mf") from None
    except openai.APIStatusError as error:
        raise SystemExit(f"The server refused: {error}") from None
