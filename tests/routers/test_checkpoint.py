import json
from pathlib import Path

import numpy as np
import pytest

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.errors import CheckpointError
from routellm.routers.checkpoint import META_FILE, WEIGHTS_FILE, load_checkpoint, save_checkpoint
from tests.conftest import require

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    quantiles = ScoreQuantiles((0.0, 0.5, 1.0), "three prompts", 3)
    return save_checkpoint(tmp_path / "router", "mf", TENSORS, {"note": "kept"}, quantiles)


def rewrite(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / META_FILE).read_text())
    (folder / META_FILE).write_text(json.dumps({**meta, **changes}))


def test_what_was_saved_is_loaded(folder: Path) -> None:
    loaded = load_checkpoint(folder, "mf")
    assert (loaded.tensors["a"] == TENSORS["a"]).all()
    assert loaded.field("note", str) == "kept"
    assert loaded.quantiles() == ScoreQuantiles((0.0, 0.5, 1.0), "three prompts", 3)


def test_truncated_weights(folder: Path) -> None:
    weights = folder / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        load_checkpoint(folder, "mf")


def test_garbage_weights(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"\x80\x04not safetensors at all")
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        load_checkpoint(folder, "mf")


def test_altered_weights_are_told_by_their_hash(folder: Path) -> None:
    weights = bytearray((folder / WEIGHTS_FILE).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(weights)
    with pytest.raises(CheckpointError, match="hash is not the one"):
        load_checkpoint(folder, "mf")


def test_missing_weights(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(CheckpointError, match=f"has no {WEIGHTS_FILE}"):
        load_checkpoint(folder, "mf")


def test_newer_format_says_what_to_do(folder: Path) -> None:
    rewrite(folder, format_version=99)
    with pytest.raises(CheckpointError, match=r"version is 99.*Upgrade routellm"):
        load_checkpoint(folder, "mf")


def test_another_routers_folder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a router of kind 'mf', not 'bert'"):
        load_checkpoint(folder, "bert")


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_broken_meta(folder: Path, text: str) -> None:
    (folder / META_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=META_FILE):
        load_checkpoint(folder, "mf")


def test_missing_or_mistyped_field(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="'absent'"):
        load_checkpoint(folder, "mf").field("absent", str)
    with pytest.raises(CheckpointError, match="'note'"):
        load_checkpoint(folder, "mf").field("note", int)


def test_quantiles_without_their_values(folder: Path) -> None:
    save_checkpoint(folder, "mf", TENSORS, {"quantiles": {"source": "x", "prompts": 1}})
    with pytest.raises(CheckpointError, match="quantiles"):
        load_checkpoint(folder, "mf").quantiles()


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "just-a-name", "a/b/c"])
def test_what_is_neither_folder_nor_hub_name(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"give a folder, or a hub repository as OWNER/NAME"):
        load_checkpoint(name, "mf")


def test_hub_out_of_reach_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = require("huggingface_hub")

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=r"'owner/name' is no folder here.*no route to host"):
        load_checkpoint("owner/name", "mf")


def test_hub_checkpoint_loads_from_where_the_hub_put_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = require("huggingface_hub")
    asked: list[str] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert set(allow_patterns) == {WEIGHTS_FILE, META_FILE}
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert load_checkpoint("owner/name", "mf").path == folder
    assert asked == ["owner/name"]
