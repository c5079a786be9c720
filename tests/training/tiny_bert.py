"""A BERT small enough to be made, distilled and exported within a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from routellm.downloads import sha256
from routellm.training import pinned
from tests.conftest import require
from tests.embeddings.encoders import VOCABULARY, write_tokenizer


def make_tiny_bert(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with random weights and a tokenizer, which then counts as the pinned one."""
    torch, transformers = require("torch"), require("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    transformers.BertModel(config).save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    special = {role: f"[{role.split('_')[0].upper()}]" for role in ("unk_token", "sep_token", "pad_token", "cls_token")}
    transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special).save_pretrained(folder)
    for name in pinned.HASHES:
        monkeypatch.setitem(pinned.HASHES, name, sha256(folder / name))
    return folder
