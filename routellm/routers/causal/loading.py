"""A folder's language model, by whichever of the two can run it: `llama` in numpy, or `model` in torch."""

from __future__ import annotations

from pathlib import Path

from routellm.routers.causal.llama import Llama
from routellm.routers.causal.llama_config import CONFIG_FILE, beyond_llama, read_settings
from routellm.routers.causal.lora import Adapter, merge
from routellm.routers.causal.model import Placement, TorchModel, libraries, load_model
from routellm.routers.causal.rater import LanguageModel

GENERATION_FILE = "generation_config.json"


def needs_torch(folder: Path, placement: Placement) -> bool:
    """Whether a model takes torch.

    Raises:
        CheckpointError: the folder has no `config.json`.
        MissingExtraError: it does, and torch or transformers is not installed.
    """
    beyond = placement.beyond_numpy() or beyond_llama(read_settings(folder))
    if beyond is not None:
        libraries(f"The router 'causal_llm' with a model {beyond}")
    return beyond is not None


def load_language_model(
    folder: Path, placement: Placement, adapter: Adapter | None = None, first_token: int = 0
) -> LanguageModel:
    """A model, ready to score: in numpy where it is of Llama's kind and runs in float32 on a CPU, else in torch.

    Args:
        folder: as transformers saves it.
        adapter: what is added to it.
        first_token: id of the first rating token.

    Raises:
        CheckpointError: the folder holds no such model, or the adapter doesn't fit it.
        ConfigError: the placement can't be had.
        MissingExtraError: it takes torch or transformers, and one is not installed.
    """
    if not needs_torch(folder, placement):
        return Llama(folder, adapter, first_token)
    model = load_model(folder, placement)
    if adapter is not None:
        merge(model, adapter, first_token)
    return TorchModel(model)


def stop_tokens(folder: Path) -> frozenset[int]:
    """Ids of the tokens that end an answer, by `generation_config.json` or, where there is none, `config.json`.

    Raises:
        CheckpointError: it can't be read.
    """
    name = GENERATION_FILE if (folder / GENERATION_FILE).is_file() else CONFIG_FILE
    ids = read_settings(folder, name).get("eos_token_id")
    return frozenset(ids if isinstance(ids, list) else [] if ids is None else [ids])
