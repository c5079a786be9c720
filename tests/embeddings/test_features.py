"""The vector that learned routers see, with and without courtesies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from routellm.embeddings.base import Embedder, Vector
from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.errors import CheckpointError
from routellm.routers.checkpoint import META_FILE, load_checkpoint, save_checkpoint
from routellm.routers.checkpoint_features import features_meta, read_features
from routellm.routers.routers import build_router

ASKED = "Hello! Could you please explain how tides work? Thanks a lot!"
PLAIN = "Explain how tides work?"


class Watched(Embedder):
    """An embedder without a compiled reader, which keeps what it is given."""

    dim, fingerprint, blocking = 2, "watched", False

    def __init__(self) -> None:
        self.given: list[str] = []

    def embed_batch(self, prompts: list[str]) -> Vector:  # type: ignore[override]
        self.given += prompts
        return np.zeros((len(prompts), 2), dtype=np.float32)


@pytest.mark.parametrize("surface_version", [2, None])
def test_courtesies_are_read_or_not(surface_version: int | None) -> None:
    embedder = load_embedder()
    deaf, hearing = (PromptFeatures(embedder, surface_version, courtesies=heard) for heard in (False, True))
    assert deaf.encode(ASKED).tolist() == deaf.encode(PLAIN).tolist() == hearing.encode(PLAIN).tolist()
    assert hearing.encode(ASKED).tolist() != hearing.encode(PLAIN).tolist()
    assert deaf.encode_batch([ASKED, PLAIN]).tolist() == [hearing.encode(PLAIN).tolist()] * 2
    assert deaf.fingerprint == f"{hearing.fingerprint}:no courtesies"


def test_neither_are_they_given_to_an_embedder_without_a_compiled_reader() -> None:
    embedder = Watched()
    features = PromptFeatures(embedder, courtesies=False)
    assert features.encode(ASKED).tolist() == features.encode_batch([ASKED])[0].tolist()
    assert embedder.given == [PLAIN, PLAIN]


def test_a_checkpoint_says_whether_they_are_read(tmp_path: Path) -> None:
    embedder = load_embedder()
    for heard in (True, False):
        meta = {"embedder": "static", **features_meta(PromptFeatures(embedder, courtesies=heard))}
        assert ("courtesies" in meta) is not heard  # as in checkpoints from before there was a choice
        save_checkpoint(tmp_path / str(heard), "mf", {"bias": np.zeros(1, dtype=np.float32)}, meta)
        assert read_features(load_checkpoint(tmp_path / str(heard), "mf")).courtesies is heard
    meta |= {"courtesies": "no"}
    save_checkpoint(tmp_path / "wrong", "mf", {"bias": np.zeros(1, dtype=np.float32)}, meta)
    with pytest.raises(CheckpointError, match="'courtesies' is missing or of a wrong type"):
        read_features(load_checkpoint(tmp_path / "wrong", "mf"))


@pytest.mark.parametrize("name", ["mf", "sw_ranking"])
def test_the_shipped_routers_do_not_read_them(name: str) -> None:
    router = build_router(name)
    scores = router.calculate_strong_win_rates([ASKED, PLAIN])
    assert scores[0] == scores[1] == router.calculate_strong_win_rate(ASKED)
    folder = Path(__file__).parents[2] / "routellm" / "routers" / "data" / name
    assert json.loads((folder / META_FILE).read_text())["courtesies"] is False
