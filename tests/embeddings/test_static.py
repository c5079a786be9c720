"""The bundled table, and folders that are not as they should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from routellm.embeddings.base import valid_utf8
from routellm.embeddings.static import BUNDLED, MAX_CHARACTERS, StaticEmbedder
from routellm.embeddings.table import MANIFEST, MAX_SHIFT, TABLE, TOKENIZER, quantise, read_table
from routellm.errors import CheckpointError

EMBEDDER = StaticEmbedder()


def reference(text: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A prompt's vector, computed the long way: Hugging Face's tokenizer, and the table in 64-bit floats."""
    from tokenizers import Tokenizer

    table = read_table(BUNDLED)
    tokenizer = Tokenizer.from_str(table.tokenizer)
    unknown = tokenizer.token_to_id("[UNK]")
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS // 2] + " " + text[-(MAX_CHARACTERS // 2) :]
    ids = [token for token in tokenizer.encode(valid_utf8(text), add_special_tokens=False).ids if token != unknown]
    rows = table.rows[ids] * np.exp2(table.shifts[ids].astype(np.float64))[:, None] * table.scales
    total = rows.sum(axis=0)
    norm = np.linalg.norm(total)
    return np.asarray(total / norm if norm else total)


@pytest.mark.parametrize(
    "prompt",
    [
        "Hi",
        "What is 17 * 23?",
        "def f(x):\n    return x ** 2",
        "don’t",
        "素数は無限に存在する",
        "word " * 3000,
        "\x00",
        "[UNK]",
    ],
)
def test_vectors_are_the_normalised_sum_of_table_rows(prompt: str) -> None:
    np.testing.assert_allclose(EMBEDDER.embed(prompt), reference(prompt), atol=1e-6)


def test_vectors_stay_as_they_were_when_routers_were_trained_on_them() -> None:
    """Shipped routers hold weights for these numbers: a change of the table or of the text's reading must fail here."""
    assert EMBEDDER.fingerprint == "static:839c8f8e40f91ede"
    vector = EMBEDDER.embed("Prove that there are infinitely many primes; don’t use Euclid's argument.")
    np.testing.assert_allclose(vector[:4], GOLDEN, atol=1e-6)


GOLDEN = [0.019248, -0.046099, -0.118053, 0.138639]


def test_related_prompts_are_nearer_than_unrelated_ones() -> None:
    primes, numbers, cake = EMBEDDER.embed_batch(
        ["Prove that there are infinitely many primes.", "Show that prime numbers never end.", "How do I bake a carrot cake?"]
    )
    assert primes @ numbers > primes @ cake + 0.2


@given(st.lists(st.text(), max_size=6))
def test_batch_rows_equal_singles_bit_for_bit(prompts: list[str]) -> None:
    batch = EMBEDDER.embed_batch(prompts)
    assert batch.shape == (len(prompts), EMBEDDER.dim)
    for row, prompt in zip(batch, prompts, strict=True):
        np.testing.assert_array_equal(row, EMBEDDER.embed(prompt))


@given(st.text())
def test_vectors_have_length_one_or_are_zero(prompt: str) -> None:
    norm = np.linalg.norm(EMBEDDER.embed(prompt))
    assert norm == pytest.approx(1.0, abs=1e-5) or norm == 0.0


def test_word_order_and_repeated_space_do_not_change_a_vector() -> None:
    np.testing.assert_array_equal(EMBEDDER.embed("big  red\tdog"), EMBEDDER.embed("dog big\n\nred"))


def test_of_a_long_prompt_both_ends_count_and_the_middle_does_not() -> None:
    half = MAX_CHARACTERS // 2
    head, tail = "begin ".ljust(half, "-"), " end".rjust(half, "-")
    np.testing.assert_array_equal(EMBEDDER.embed(head + "middle" * 50_000 + tail), EMBEDDER.embed(head + " " + tail))
    assert not np.array_equal(EMBEDDER.embed(head + "x" * 99 + tail), EMBEDDER.embed(head + "x" * 99 + tail[:-1] + "?"))


def test_quantising_keeps_directions() -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32) * np.geomspace(0.02, 1, 500)[:, None]
    rows, shifts, scales = quantise(vectors.astype(np.float32))
    assert rows.dtype == np.int8
    assert shifts.max() == MAX_SHIFT
    restored = rows * np.exp2(shifts.astype(np.float32))[:, None] * scales
    cosines = (restored * vectors).sum(1) / np.linalg.norm(restored, axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosines[250:].min() > 0.999


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled table."""
    for name in (TABLE, TOKENIZER, MANIFEST):
        shutil.copyfile(BUNDLED / name, tmp_path / name)
    return tmp_path


def change_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def rehash(folder: Path) -> None:
    """Make the manifest agree with files that a test has altered."""
    import hashlib

    change_manifest(
        folder, sha256={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (TABLE, TOKENIZER)}
    )


def change_arrays(folder: Path, **changes: Any) -> None:
    save_file(load_file(folder / TABLE) | changes, folder / TABLE)
    rehash(folder)


def test_a_copied_folder_gives_the_same_vectors_and_fingerprint(folder: Path) -> None:
    copied = StaticEmbedder(folder)
    assert copied.fingerprint == EMBEDDER.fingerprint
    np.testing.assert_array_equal(copied.embed("Hello there"), EMBEDDER.embed("Hello there"))


def test_another_table_has_another_fingerprint(folder: Path) -> None:
    change_arrays(folder, scales=load_file(folder / TABLE)["scales"] * 2)
    assert StaticEmbedder(folder).fingerprint != EMBEDDER.fingerprint


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "No static table"),
    "no table": (lambda folder: (folder / TABLE).unlink(), "can't be read"),
    "no tokenizer": (lambda folder: (folder / TOKENIZER).unlink(), "can't be read"),
    "manifest cut short": (lambda folder: (folder / MANIFEST).write_text('{"format":'), "not valid JSON"),
    "manifest of bytes": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
    "manifest is a list": (lambda folder: (folder / MANIFEST).write_text("[]"), "does not describe"),
    "other format": (lambda folder: change_manifest(folder, format="other"), "does not describe"),
    "newer format": (lambda folder: change_manifest(folder, format_version=2), "Upgrade routellm"),
    "no hashes": (lambda folder: change_manifest(folder, sha256=None), "lacks `sha256`"),
    "table cut short": (
        lambda folder: (folder / TABLE).write_bytes((folder / TABLE).read_bytes()[:-100]),
        "cut short or altered",
    ),
    "tokenizer altered": (lambda folder: (folder / TOKENIZER).write_text("{}"), "cut short or altered"),
    "no safetensors": (lambda folder: ((folder / TABLE).write_bytes(b"junk" * 9), rehash(folder)), "not a valid safetensors"),
    "wrong width": (lambda folder: change_manifest(folder, dim=128), "promises"),
    "wrong type": (lambda folder: change_arrays(folder, scales=np.ones(256)), "promises"),
    "endless scale": (lambda folder: change_arrays(folder, scales=np.full(256, np.inf, np.float32)), "not finite"),
    "no tokenizer inside": (
        lambda folder: ((folder / TOKENIZER).write_text("{}"), rehash(folder)),
        "not a WordPiece tokenizer",
    ),
    "other vocabulary": (
        lambda folder: (
            (folder / TOKENIZER).write_text((folder / TOKENIZER).read_text().replace('"zebra":', '"zebra2":99999,"zebra":')),
            rehash(folder),
        ),
        "knows 100000 tokens",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_refused_by_name(kind: str, folder: Path) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        StaticEmbedder(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No static table"):
        StaticEmbedder(tmp_path / "nowhere")
