"""Language models small enough to be made within a test: a base, an adapter of it, and one of the published kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.routers.causal.base import BaseModel
from routellm.routers.causal.lora import ROWS
from routellm.routers.causal.prompt import CLASSIFIER_FILE, SYSTEM_FILE
from routellm.routers.checkpoint import save_checkpoint
from tests.conftest import require

SYSTEM, CLASSIFIER = "Rate.", "Q: {question}\nRating:"
TOKENS = [f"[[{rating}]]" for rating in range(1, 6)]
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
WIDTH, LAYERS = 32, 2


def write_base(folder: Path, *, tied: bool = True, seed: int = 0, **config: Any) -> Path:
    """A base model with random weights and a byte-level tokenizer; `config` goes into its configuration."""
    _save(folder, _config(259, tied, **config), seed)
    return folder


def write_published(folder: Path, *, strength: float = 2.0, seed: int = 0, rows: int = 264) -> Path:
    """A whole model whose output layer has rows for the rating tokens, `strength` times as large as the others."""
    torch = require("torch")
    model = _save(folder, _config(rows, tied=False), seed)
    with torch.no_grad():
        model.lm_head.weight[259:264] *= strength
    model.save_pretrained(folder)
    (folder / SYSTEM_FILE).write_text(SYSTEM)
    (folder / CLASSIFIER_FILE).write_text(CLASSIFIER)
    return folder


def adapter_tensors(*, rank: int = 2, seed: int = 3, strength: float = 0.2) -> dict[str, np.ndarray[Any, Any]]:
    """An adapter of two layers of the base, and rating rows."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray[Any, Any]:
        return (strength * random.standard_normal(shape)).astype(np.float16)

    tensors = {ROWS: 8 * draw(5, WIDTH)}
    for name, out, inside in (("self_attn.k_proj", 16, WIDTH), ("mlp.down_proj", WIDTH, 48)):
        tensors[f"model.layers.1.{name}.lora_A"] = draw(rank, inside)
        tensors[f"model.layers.1.{name}.lora_B"] = draw(out, rank)
    return tensors


def write_adapter(folder: Path, base: Path, quantiles: ScoreQuantiles | None = None) -> Path:
    """A checkpoint of ours over `base`."""
    texts = {SYSTEM_FILE: SYSTEM, CLASSIFIER_FILE: CLASSIFIER}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    record = BaseModel.of(str(base), None, base).record()
    meta = {"special_tokens": TOKENS, "max_length": 128, "base": record}
    files = {name: folder / name for name in texts}
    return save_checkpoint(folder, "causal_llm", adapter_tensors(), meta, quantiles, files)


def _config(vocabulary: int, tied: bool, **more: Any) -> Any:
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": tied,
        "initializer_range": 0.5,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 258,
    }
    return require("transformers").LlamaConfig(**{**settings, **more})


def _save(folder: Path, config: Any, seed: int) -> Any:
    torch, transformers = require("torch"), require("transformers")
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    return model
