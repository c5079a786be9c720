"""The tokenizer and the chat template against those of transformers."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import CheckpointError
from routellm.routers.causal.tokenizer import ChatTokenizer
from tests.conftest import require
from tests.prompts import ODD_PROMPTS
from tests.routers.tiny_llama import TOKENS, write_base

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a "
    "helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] "
    "+ '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>"
    "assistant\n' }}{% endif %}"
)
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set "
    "content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>"
    "assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CONSTRUCTS = """{%- if tools is none %}no tools{% endif %}
    {%- if documents %}{{ raise_exception("documents") }}{% endif %}
{{ bos_token }}{{ strftime_now("%Y") }} {{ {"a": "<é>"} | tojson }} {{ [1, 2] | tojson(indent=2) }}
    {% for message in messages %}
        {%- if message.role == "tool" %}{% continue %}{% endif %}
  {% generation %}{% set inner = 1 %}{{ message.content | trim }}{% endgeneration %}[{{ inner }}]
        {%- if loop.index > 3 %}{% break %}{% endif %}
    {% endfor %}
{{ date_string if date_string is defined else "no date" }}{{ absent }}{{ eos_token }}
"""
MESSAGES = [
    [{"role": "system", "content": "Rate."}, {"role": "user", "content": " a\n{{ 1 + 1 }} <é> \n"}],
    [{"role": "user", "content": "no system"}],
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """The tokenizer's files alone."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    return tmp_path


def settings_of(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text())
    return held


def configure(folder: Path, **settings: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings_of(folder), **settings}))


def by_transformers(folder: Path, messages: list[dict[str, str]]) -> str:
    tokenizer = require("transformers").AutoTokenizer.from_pretrained(folder)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("template", [SMOLLM2, LLAMA_3, CONSTRUCTS], ids=["SmolLM2", "Llama 3", "constructs"])
@pytest.mark.parametrize("messages", MESSAGES, ids=["system", "user"])
def test_templates_are_rendered_as_transformers_does(folder: Path, template: str, messages: list[dict[str, str]]) -> None:
    (folder / "chat_template.jinja").write_text(template)
    rendered = ChatTokenizer(folder, TOKENS).render(messages)
    assert rendered == by_transformers(folder, messages)
    assert messages[-1]["content"].strip() in rendered


def test_a_template_may_ask_for_todays_date(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}")
    assert datetime.now().strftime("%Y") in ChatTokenizer(folder, TOKENS).render([])


@pytest.mark.parametrize("held", [SMOLLM2, [{"name": "tool_use", "template": "t"}, {"name": "default", "template": SMOLLM2}]])
def test_the_template_may_stand_in_the_configuration(folder: Path, held: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    configure(folder, chat_template=held)
    assert ChatTokenizer(folder, TOKENS).render(MESSAGES[0]) == by_transformers(folder, MESSAGES[0])


def test_the_file_goes_before_the_configuration(folder: Path) -> None:
    configure(folder, chat_template="another")
    assert ChatTokenizer(folder, TOKENS).render(MESSAGES[0]) == by_transformers(folder, MESSAGES[0]) != "another"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('System role not supported') }}", "can't be rendered: System role not supported"),
        ("{% for %}", "can't be rendered"),
        ("{{ messages.append(1) }}", "can't be rendered: .*unsafe"),
        ("{{ ''.__class__.__mro__ }}", "can't be rendered: .*unsafe"),
        ("{{ 1 + 'a' }}", "can't be rendered"),
        ("{{ sep_token }}{{ bos_token }}", r"asks for sep_token, which tokenizer_config\.json doesn't name"),
        ("", "no chat template"),
    ],
)
def test_a_template_that_cannot_be_trusted_is_refused(folder: Path, template: str, message: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match=message):
        ChatTokenizer(folder, TOKENS).render(MESSAGES[0])


@pytest.mark.parametrize("held", [None, 3, [{"name": "tool_use", "template": "t"}], ["t"]])
def test_without_a_template_there_is_no_rendering(folder: Path, held: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    configure(folder, chat_template=held)
    with pytest.raises(CheckpointError, match="chat template"):
        ChatTokenizer(folder, TOKENS).render(MESSAGES[0])


def test_ids_and_special_tokens_are_those_of_transformers(folder: Path) -> None:
    ours, theirs = ChatTokenizer(folder, TOKENS), require("transformers").AutoTokenizer.from_pretrained(folder)
    theirs.add_tokens(TOKENS, special_tokens=True)
    assert ours.first_rating == theirs.convert_tokens_to_ids(TOKENS[0])
    assert ours.eos == theirs.eos_token_id
    assert ours.special == {*theirs.all_special_tokens, *theirs.get_added_vocab()}
    for prompt in [*ODD_PROMPTS, "<|start|>a<|end|> [[1]][[5]] b <|pad|>"]:
        text = prompt.encode("utf-8", "replace").decode()
        ids, starts = ours.encode(text)
        theirs_encoded = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ids == theirs_encoded["input_ids"] == ours.ids(text)
        assert starts == [start for start, _ in theirs_encoded["offset_mapping"]]
        assert ours.decode(ids) == theirs.decode(ids)


def test_truncation_and_padding_of_the_file_are_not_applied(folder: Path) -> None:
    held = json.loads((folder / "tokenizer.json").read_text())
    held["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    held["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "a",
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(held))
    assert len(ChatTokenizer(folder, TOKENS).ids("abcde")) == 5


def test_rating_tokens_that_are_there_keep_their_ids(folder: Path) -> None:
    held = json.loads((folder / "tokenizer.json").read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    end = max(token["id"] for token in held["added_tokens"]) + 1
    held["added_tokens"] += [{"id": end + place, "content": token, **plain} for place, token in enumerate(TOKENS)]
    (folder / "tokenizer.json").write_text(json.dumps(held))
    assert ChatTokenizer(folder, TOKENS).first_rating == end
    with pytest.raises(CheckpointError, match=r"ids of .* don't follow each other"):
        ChatTokenizer(folder, TOKENS[::-1])


@pytest.mark.parametrize(
    "settings",
    [
        {"sep_token": "<|sep|>"},
        {"bos_token": {"content": "<|other|>"}},
        {"additional_special_tokens": ["<|start|>", "<|tool|>"]},
        {"extra_special_tokens": {"image_token": "<|image|>"}},
        {"added_tokens_decoder": {"256": {"content": "<|image|>"}}},
        {"added_tokens_decoder": {"300": {"content": "<|end|>"}}},
    ],
)
def test_a_token_that_tokenizer_json_does_not_have_is_refused(folder: Path, settings: dict[str, Any]) -> None:
    configure(folder, **settings)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json has the token .*Save the tokenizer again"):
        ChatTokenizer(folder, TOKENS)


def test_names_of_tokens_in_a_file_of_older_releases_are_read(folder: Path) -> None:
    held = settings_of(folder)
    names = {name: held.pop(name) for name in ("bos_token", "eos_token", "pad_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(held))
    (folder / "special_tokens_map.json").write_text(json.dumps({name: {"content": token} for name, token in names.items()}))
    (folder / "chat_template.jinja").write_text(LLAMA_3)
    tokenizer = ChatTokenizer(folder, TOKENS)
    assert tokenizer.eos is not None
    assert tokenizer.render(MESSAGES[0]).startswith("<|start|><|start_header_id|>system")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, r"has no tokenizer\.json"),
        ("tokenizer.json", "{}", r"tokenizer\.json: can't be read"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json: can't be read"),
        ("tokenizer_config.json", "[1]", r"tokenizer_config\.json: can't be read"),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}', "added_tokens_decoder can't be read"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {}}}', "added_tokens_decoder can't be read"),
        ("chat_template.jinja", b"\xff", "chat template can't be read"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, content: str | bytes | None, message: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=message):
        ChatTokenizer(folder, TOKENS).render(MESSAGES[0])
