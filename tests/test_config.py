from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from routellm.config import check_config, load_config, read_environment
from routellm.errors import CheckpointError, ConfigError
from routellm.routers.routers import ROUTER_CLS, build_router
from routellm.serving.settings import read_gateway_settings
from tests.conftest import require

ROOT = Path(__file__).parent.parent
KNOWN = ["mf", "random"]


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_gives_the_arguments_of_each_router(tmp_path: Path) -> None:
    path = write(tmp_path, "mf:\n  checkpoint_path: ./here\nrandom: {seed: 7}\n")
    assert load_config(path, KNOWN) == {"mf": {"checkpoint_path": "./here"}, "random": {"seed": 7}}


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}"])
def test_an_empty_file_is_an_empty_configuration(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path, text), KNOWN) == {}


def test_a_router_without_arguments_may_stand_alone(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "mf:\n"), KNOWN) == {"mf": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mff: {}", "unknown router 'mff' (did you mean 'mf'?). Known: mf, random."),
        ("[mf]", "must map router names to their arguments, not be a list"),
        ("mf: 3", "mf: must map argument names to values, not be 3"),
        ("mf: {1: 2}", "mf: must map argument names to values"),
        ("mf: [unclosed", "is not valid YAML"),
        ("1: {}", "unknown router 1"),
        (b"mf: \xff", "is not UTF-8 text"),
        ("mf: !!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, KNOWN)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml' can't be read: No such file"):
        load_config(tmp_path / "none.yaml", KNOWN)


def test_a_mapping_from_python_is_checked_and_copied() -> None:
    given = {"random": {"seed": 1}}
    checked = check_config(given, KNOWN)
    assert checked == given
    assert checked["random"] is not given["random"]


def test_the_environment_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTELLM_PROBE", "before")
    environment = read_environment()
    monkeypatch.setenv("ROUTELLM_PROBE", "after")
    assert environment["ROUTELLM_PROBE"] == "before"


EXAMPLE = load_config(ROOT / "config.example.yaml", ROUTER_CLS)
EXTRAS = {"bert": "onnxruntime", "gain_accurate": "onnxruntime"}
"""Routers of the example that need an optional package to score."""


def own_routers() -> set[str]:
    """The package's routers, without what other tests register."""
    return {name for name in ROUTER_CLS if ROUTER_CLS[name].__module__.startswith("routellm.")}


def test_the_example_file_names_every_router_that_ships() -> None:
    assert set(EXAMPLE) == own_routers() - {"adapted"}


@pytest.mark.parametrize("name", [name for name in EXAMPLE if name != "causal_llm"])  # whose base is fetched
def test_the_routers_of_the_example_file_score(name: str) -> None:
    if name in EXTRAS:
        require(EXTRAS[name])
    assert 0.0 <= build_router(name, EXAMPLE[name]).calculate_strong_win_rate("What is 2 + 2?") <= 1.0


def test_what_the_example_file_shows_in_comments_are_arguments_that_exist() -> None:
    text = (ROOT / "config.example.yaml").read_text(encoding="utf-8")
    shown: dict[str, list[str]] = {}
    for line in text.partition("gateway:")[0].splitlines():
        if found := re.match(r"(?:# )?(\w+):(?: \{\})?$", line):
            name = found[1]
        elif found := re.match(r"(?:  # |#   )(\w+): \S+$|  # (arena_battle_datasets): ", line):
            shown.setdefault(name, []).append(found[1] or found[2])
    assert shown["mf"] == ["checkpoint_path", "strong_model", "weak_model"]
    assert set(shown) == own_routers() - {"random"}
    for name, arguments in shown.items():
        assert set(arguments) <= set(inspect.signature(ROUTER_CLS[name]).parameters)


def test_what_the_example_file_shows_of_the_server_are_settings_that_exist() -> None:
    text = (ROOT / "config.example.yaml").read_text(encoding="utf-8").partition("gateway:")[2]
    lines = [line.removeprefix("  # ") for line in text.splitlines()]
    shown = yaml.safe_load("\n".join(line for line in lines if re.match(r"[a-z_]+: |[a-z_]+:$| ", line)))
    assert {"fallback", "spares", "models", "sticky", "ledger", "prices", "admission"} <= set(shown)
    settings = read_gateway_settings(shown, {}, "config.example.yaml")
    assert settings.fallback == "strong-to-weak"
    assert len(settings.models["gpt-4o"].deployments) == 2


def test_the_file_of_the_hub_checkpoints_is_valid_and_names_known_arguments(tmp_path: Path) -> None:
    arguments = load_config(ROOT / "config.hub.yaml", ROUTER_CLS)["mf"]
    assert arguments["checkpoint_path"] == "routellm/mf_gpt4_augmented"
    with pytest.raises(CheckpointError, match="nowhere"):  # every argument is known: it is the folder that is not there
        build_router("mf", {**arguments, "checkpoint_path": str(tmp_path / "nowhere")})
