"""The tokenizer of a chat model: `tokenizer.json`, the rating tokens added to it, and the chat template.

transformers is not asked: some of its releases build the tokenizer anew by the class that `tokenizer_config.json` names, and
its import takes seconds. The template is rendered as it does, by jinja2 in the sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routellm.errors import CheckpointError

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

TOKENIZER_FILE = "tokenizer.json"
_SETTINGS_FILE = "tokenizer_config.json"
_TEMPLATE_FILE = "chat_template.jinja"


class ChatTokenizer:
    """Tokenises text, and renders messages.

    Args:
        folder: `tokenizer.json`, `tokenizer_config.json` and, unless that holds it, `chat_template.jinja`.
        rating_tokens: they are added as special tokens, in this order.

    Attributes:
        first_rating: the id of the first rating token; the others follow it.
        special: all special and added tokens.

    Raises:
        CheckpointError: there is no such tokenizer, its files contradict each other, or it knows some of the rating tokens in
            another order.
    """

    def __init__(self, folder: Path, rating_tokens: Sequence[str]) -> None:
        self._folder = folder
        self._tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
        self._settings = _settings(folder)
        self._named = dict(_named_tokens(self._settings))
        self._check_agreement()
        self._tokenizer.add_special_tokens(list(rating_tokens))
        ids = [self._tokenizer.token_to_id(token) for token in rating_tokens]
        if ids != list(range(ids[0], ids[0] + len(ids))):
            raise CheckpointError(f"{folder}: the ids of {', '.join(rating_tokens)} don't follow each other: {ids}.")
        self.first_rating: int = ids[0]
        added = (token.content for token in self._tokenizer.get_added_tokens_decoder().values())
        self.special = frozenset([*self._named.values(), *_listed_tokens(self._settings), *added])

    @property
    def eos(self) -> int | None:
        """The id of the token that ends an answer, if there is one."""
        name = self._named.get("eos_token")
        return None if name is None else self._tokenizer.token_to_id(name)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added before or after it."""
        return self.encode(text)[0]

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids of a text, and the place of the character at which each begins."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens as well."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Messages in the chat template, up to where the answer is to be generated.

        Raises:
            CheckpointError: there is no template, or it can't be rendered with these messages.
        """
        from jinja2 import meta

        template = chat_template(self._folder)
        environment = _environment()
        try:
            asked = meta.find_undeclared_variables(environment.parse(template))
            unknown = sorted(name for name in asked if name.endswith("_token") and name not in self._settings)
            if not unknown:
                rendered = environment.from_string(template).render(
                    messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._named
                )
                return str(rendered)
        except Exception as error:  # a template is a program, and may raise anything
            raise CheckpointError(f"{self._folder}: its chat template can't be rendered: {error}") from error
        raise CheckpointError(
            f"{self._folder}: its chat template asks for {', '.join(unknown)}, which {_SETTINGS_FILE} doesn't name. Save the "
            f"tokenizer again with transformers, or add it."
        )

    def _check_agreement(self) -> None:
        """Where `tokenizer_config.json` knows more tokens than `tokenizer.json`, transformers would number them."""
        decoder = self._settings.get("added_tokens_decoder") or {}
        try:
            listed = {str(token["content"]): int(number) for number, token in decoder.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self._folder / _SETTINGS_FILE}: added_tokens_decoder can't be read: {error!r}."
            ) from error
        wanted = {**dict.fromkeys([*self._named.values(), *_listed_tokens(self._settings)]), **listed}
        for token, number in wanted.items():
            held = self._tokenizer.token_to_id(token)
            if held is None or number not in (None, held):
                raise CheckpointError(
                    f"{self._folder}: {_SETTINGS_FILE} has the token {token!r}, and {TOKENIZER_FILE} has not, or with another "
                    f"id. Save the tokenizer again with transformers."
                )


def chat_template(folder: Path) -> str:
    """The source of a folder's chat template.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    held = _settings(folder).get("chat_template")
    try:
        if (folder / _TEMPLATE_FILE).is_file():  # goes before the other, as in transformers
            held = (folder / _TEMPLATE_FILE).read_text(encoding="utf-8")
        elif isinstance(held, list):
            held = {each["name"]: each["template"] for each in held}.get("default")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: its chat template can't be read: {error!r}.") from error
    if not isinstance(held, str) or not held:
        raise CheckpointError(
            f"{folder}: its tokenizer has no chat template. Put the {_TEMPLATE_FILE} that it was trained with into the folder."
        )
    return held


def load_tokenizer(path: Path) -> Any:
    """A `tokenizer.json`, without truncation and padding.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    from tokenizers import Tokenizer

    if not path.is_file():
        raise CheckpointError(f"{path.parent}: has no {TOKENIZER_FILE}, the only kind of tokenizer that is read here.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"{path}: can't be read: {error}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`; of older releases of transformers `special_tokens_map.json` as well."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", _SETTINGS_FILE):
        try:
            settings |= json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{folder / name}: can't be read: {error!r}.") from error
    return settings


def _named_tokens(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`bos_token` and its like, as templates ask for them."""
    for name, value in settings.items():
        token = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(token, str):
            yield name, token


def _listed_tokens(settings: Mapping[str, Any]) -> Iterator[str]:
    for name in ("additional_special_tokens", "extra_special_tokens"):
        held = settings.get(name) or []
        for value in held.values() if isinstance(held, dict) else held:
            yield str(value.get("content") if isinstance(value, dict) else value)


def _environment() -> SandboxedEnvironment:
    """jinja2 as chat templates are written for."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what a model answers, for training; here it means nothing."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, **more: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **more})

    extensions: list[Any] = [Generation, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return environment
