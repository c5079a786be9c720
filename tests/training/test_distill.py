"""The scripts that make the embedders' files: pinned sources, and a whole run on a tiny model."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from routellm.embeddings.onnx import OnnxEmbedder
from routellm.embeddings.static import BUNDLED, StaticEmbedder
from routellm.embeddings.table import MANIFEST, TABLE, TOKENIZER, read_table
from routellm.errors import CheckpointError
from routellm.tables import write_table
from routellm.training import distill, onnx_export
from routellm.training.pinned import HASHES, SOURCE, check_pinned
from tests.conftest import require
from tests.training.tiny_bert import make_tiny_bert


def test_the_bundled_table_names_the_pinned_source() -> None:
    manifest = json.loads((BUNDLED / MANIFEST).read_text())
    assert manifest["source"] == SOURCE
    assert (manifest["tokens"], manifest["dim"]) == read_table(BUNDLED).rows.shape == (29_525, distill.DIM)


def test_the_bundled_files_come_with_their_licence_and_notice() -> None:
    assert "Apache License" in (BUNDLED / "LICENSE").read_text()
    assert "all-MiniLM-L6-v2" in (BUNDLED / "NOTICE").read_text()
    assert "all-MiniLM-L6-v2" in (Path(__file__).parents[2] / "NOTICE").read_text()


def test_the_bundled_tokenizer_only_splits() -> None:
    description = json.loads((BUNDLED / TOKENIZER).read_text())
    assert [description[key] for key in ("padding", "truncation", "post_processor", "added_tokens")] == [None, None, None, []]
    assert {"0", "9", "!", "?", "$", "##s", "[UNK]"} <= set(description["model"]["vocab"])
    assert not any(token.startswith("[unused") for token in description["model"]["vocab"])


def test_a_missing_or_different_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*can't be read"):
        check_pinned(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match=HASHES["model.safetensors"]):
        check_pinned(tmp_path)


@pytest.mark.parametrize(("main", "more"), [(distill.main, ["--states", "states.parquet"]), (onnx_export.main, [])])
def test_a_script_fails_in_one_line(main: object, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main)
    assert main(["--model", str(tmp_path), *more, "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_distilling_gives_a_folder_that_the_embedder_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("model2vec.distill", reason="needs the extra `distill`, which is too large for CI")
    model = make_tiny_bert(tmp_path / "model", monkeypatch)
    monkeypatch.setattr(distill, "DIM", 16)
    states = tmp_path / "states.parquet"
    letters = [" ".join(pair) for pair in itertools.permutations("abcdef", 2)]
    random = np.random.default_rng(0)
    write_table(states, {"prompt": letters, "state": [random.standard_normal(20).tolist() for _ in letters]})
    for out in ("first", "second"):
        assert distill.main(["--model", str(model), "--states", str(states), "--out", str(tmp_path / out)]) == 0
    manifest = json.loads((tmp_path / "first" / MANIFEST).read_text())
    assert manifest["states"]["prompts"] == len(letters)
    assert manifest["states"]["explained"] < 0.5, "noise can't be predicted"
    assert "54 tokens x 16" in capsys.readouterr().out
    first, second = StaticEmbedder(tmp_path / "first"), StaticEmbedder(tmp_path / "second")
    assert first.fingerprint == second.fingerprint
    assert first.dim == 16
    assert np.linalg.norm(first.embed("abc d")) == pytest.approx(1.0, abs=1e-5)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted([TABLE, TOKENIZER, MANIFEST])


@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
@pytest.mark.parametrize("int8", [False, True])
def test_exporting_gives_a_folder_that_the_embedder_loads(int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("onnxscript")
    model = make_tiny_bert(tmp_path / "model", monkeypatch)
    out = tmp_path / "out"
    assert onnx_export.main(["--model", str(model), "--out", str(out), *(["--int8"] if int8 else [])]) == 0
    assert OnnxEmbedder(out).dim == 32
    report = json.loads((out / "export.json").read_text())
    assert report["weights"] == ("int8" if int8 else "float32")
    assert min(report["cosine_to_source"].values()) > (0.95 if int8 else 0.99999)
    assert b"site-packages" not in (out / "model.onnx").read_bytes(), "no paths of this machine"
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "model.onnx", "tokenizer.json"]
