"""Holds the layers apart: imports go strictly down, and heavy libraries stay in the files that are named for them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "routellm"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("types",),
    ("registry", "config", "messages", "tables", "hub", "commands"),
    ("prompt_files", "downloads"),
    ("embeddings", "upstream", "policies", "calibration", "metrics"),
    ("routers", "costs", "dispatch"),
    ("decider",),
    ("controller", "training", "ledger", "telemetry"),
    ("keys",),
    ("evals", "serving", "distributed"),
    ("openai_server", "calibrate_threshold", "route_prompt"),
    ("cli",),
    ("__main__",),
)
"""Rooms from the lowest to the highest layer. A room imports from lower layers only, never from its own."""

UPWARD: dict[str, tuple[str, ...]] = {"embeddings/base.py": ("routellm.routers.bert",)}
"""File -> modules of a higher layer that its lazy table may name: the embedder `bert` reads checkpoints, as routers do."""

HEAVY: dict[str, tuple[str, ...]] = {
    "torch": ("training/*.py", "routers/transformers_classifier.py", "routers/causal/model.py", "routers/causal/lora.py"),
    "transformers": ("training/*.py", "routers/transformers_classifier.py", "routers/causal/model.py"),
    "jinja2": ("routers/causal/tokenizer.py",),
    "model2vec": ("training/*.py",),
    "onnx": ("training/*.py",),
    "sklearn": ("training/*.py",),
    "onnxruntime": ("embeddings/onnx.py", "training/*.py"),
    "litellm": ("upstream/litellm.py",),
    "pandas": ("evals/*.py", "training/*.py"),
    "pyarrow": ("tables.py", "evals/*.py", "training/*.py"),
    "datasets": ("tables.py", "training/*.py"),
    "huggingface_hub": ("hub.py", "training/*.py"),
    "matplotlib": ("evals/plots.py", "ledger/plot.py"),
    "sqlalchemy": ("keys/*.py", "ledger/*.py", "ledger/migrations/*.py", "ledger/migrations/versions/*.py"),
    "alembic": ("ledger/*.py", "ledger/migrations/*.py", "ledger/migrations/versions/*.py"),
    "psycopg": ("ledger/database.py",),
    "genai_prices": ("costs.py", "policies/context.py"),
    "prometheus_client": ("telemetry/*.py",),
    "opentelemetry": ("telemetry/*.py",),
    "ray": ("distributed/*.py",),
    "gradio": (),
    "uvicorn": ("openai_server.py", "serving/*.py"),
    "starlette": ("openai_server.py", "serving/*.py"),
    "uvloop": ("openai_server.py", "serving/*.py"),
}
"""Heavy or optional library -> the only files that may import it."""

FILES = sorted(PACKAGE.rglob("*.py"))
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of whatever the file imports, anywhere in it, with `from a import b` as `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def modules_named_in_strings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of modules that the file imports by name, as lazy tables do ("routellm.routers.mf:Class")."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = re.fullmatch(r"(routellm(?:\.\w+)+)(?::\w+)?", node.value)
            parts = found[1].split(".")[1:] if found else []
            if found and (PACKAGE.joinpath(*parts).is_dir() or PACKAGE.joinpath(*parts).with_suffix(".py").is_file()):
                yield node.lineno, found[1]


def is_allowed(importer: str, imported: str) -> bool:
    """Whether the room `importer` may import the module or name `imported`."""
    parts = imported.split(".")
    if parts[0] != "routellm" or len(parts) == 1 or parts[1] not in RANK:
        return True  # another package's, or a name such as `routellm.__version__`
    return parts[1] == importer or RANK[parts[1]] < RANK[importer]


def test_every_file_belongs_to_a_layer() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(RANK)


# The package's own names are lazy, and tests/test_import.py holds them to it.
@pytest.mark.parametrize("path", [path for path in FILES if relative(path) != "__init__.py"], ids=relative)
def test_imports_go_strictly_down(path: Path) -> None:
    lazy = [(line, name) for line, name in modules_named_in_strings(path) if name not in UPWARD.get(relative(path), ())]
    named = [*imported_modules(path), *lazy]
    wrong = [f"{relative(path)}:{line}: {name}" for line, name in named if not is_allowed(room_of(path), name)]
    assert wrong == []


def test_the_rule_catches_what_it_should() -> None:
    assert is_allowed("serving", "routellm.decider.Decider")
    assert is_allowed("routers", "routellm.routers.checkpoint")
    assert not is_allowed("routers", "routellm.serving.app")
    assert not is_allowed("embeddings", "routellm.upstream.base")
    assert not is_allowed("upstream", "routellm.calibration.quantiles")


def test_heavy_libraries_stay_in_their_files() -> None:
    wrong = []
    for path in FILES:
        for line, name in imported_modules(path):
            allowed = HEAVY.get(name.split(".")[0])
            if allowed is not None and not any(path.relative_to(PACKAGE).match(pattern) for pattern in allowed):
                wrong.append(f"{relative(path)}:{line}: {name}")
    assert wrong == []


def test_no_pickle_and_no_code_from_data() -> None:
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert [relative(path) for path in FILES for _, name in imported_modules(path) if name.split(".")[0] in forbidden] == []
    text = {relative(path): path.read_text(encoding="utf-8") for path in FILES}
    assert [
        name
        for name, source in text.items()
        if re.search(r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|verify\s*=\s*False", source)
    ] == []


def test_the_environment_is_read_in_one_place() -> None:
    readers = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and ast.unparse(node.value) == "os":
                readers.add(relative(path))
    assert readers <= {"config.py", "upstream/litellm.py"}, "read_environment() in config.py is the only reader"
