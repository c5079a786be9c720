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


@pytest.fixture
def with_files(tmp_path: Path) -> Path:
    for name, text in {"graph.bin": "a graph", "words.txt": "some words"}.items():
        (tmp_path / name).write_text(text)
    files = {"model.onnx": tmp_path / "graph.bin", "words.txt": tmp_path / "words.txt"}
    return save_checkpoint(tmp_path / "router", "mf", TENSORS, {}, files=files)


def test_further_files_come_along(with_files: Path) -> None:
    loaded = load_checkpoint(with_files, "mf")
    assert loaded.file("model.onnx").read_text() == "a graph"
    assert loaded.file("words.txt") == with_files / "words.txt"
    with pytest.raises(CheckpointError, match=r"lists no file 'graph.bin'. It lists: model.onnx, words.txt"):
        loaded.file("graph.bin")


def test_an_altered_or_missing_file_is_told(with_files: Path) -> None:
    (with_files / "words.txt").write_text("other words")
    with pytest.raises(CheckpointError, match=r"words.txt: its hash is not the one in router.json"):
        load_checkpoint(with_files, "mf")
    (with_files / "words.txt").unlink()
    with pytest.raises(CheckpointError, match=r"has no words.txt, which router.json lists"):
        load_checkpoint(with_files, "mf")


def test_a_folder_may_be_saved_again_over_its_own_files(with_files: Path) -> None:
    held = {"model.onnx": with_files / "model.onnx"}
    save_checkpoint(with_files, "mf", TENSORS, {}, files=held)
    assert load_checkpoint(with_files, "mf").file("model.onnx").read_text() == "a graph"


@pytest.mark.parametrize("name", ["../out", "a/b", "", "..", "a\\b", META_FILE, WEIGHTS_FILE])
def test_files_stay_in_their_folder(with_files: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="can't be named"):
        save_checkpoint(with_files.parent / "other", "mf", TENSORS, {}, files={name: with_files / "words.txt"})
    rewrite(with_files, files={name: "0" * 64})
    with pytest.raises(CheckpointError, match="'files' must map plain file names"):
        load_checkpoint(with_files, "mf")


def test_further_files_are_fetched_from_the_hub_too(with_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = require("huggingface_hub")
    asked: list[list[str]] = []

    def download(_: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(sorted(allow_patterns))
        return str(with_files)

    monkeypatch.setattr(hub, "snapshot_download", download)
    load_checkpoint("owner/name", "mf")
    assert asked == [[WEIGHTS_FILE, META_FILE], ["model.onnx", "words.txt"]]


def test_small_types_come_back_as_they_were_and_others_as_float32(tmp_path: Path) -> None:
    kept = {name: np.arange(3).astype(name) for name in ("int8", "uint8", "int16", "int32", "float16")}
    others = {name: np.arange(3).astype(name) for name in ("float32", "float64", "int64", "bool")}
    loaded = load_checkpoint(save_checkpoint(tmp_path / "router", "mf", {**kept, **others}, {}), "mf").tensors
    assert {name: loaded[name].dtype.name for name in kept} == {name: name for name in kept}
    assert {loaded[name].dtype.name for name in others} == {"float32"}
    assert all((loaded[name] == array).all() for name, array in {**kept, **others}.items())


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, kind: str) -> None:
    folder = save_checkpoint(tmp_path / "router", "mf", {"a": np.array([1.0, np.nan]).astype(kind)}, {})
    with pytest.raises(CheckpointError, match="'a' holds values that are not finite"):
        load_checkpoint(folder, "mf")
