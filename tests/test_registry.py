from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from routellm.errors import ConfigError, UnknownNameError
from routellm.registry import Registry
from routellm.routers.routers import ROUTER_CLS, Router, build_router

GROUP = "routellm.routers"

Install = Callable[[str, str, str], None]


class Base:
    pass


class Mine(Base):
    pass


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution on the path, as pip would: its metadata, and a module with the given source."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(distribution: str, entry: str, source: str) -> None:
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry}\n")
        module = entry.split("=")[1].strip().split(":")[0]
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()

    return add


def registry(**builtins: str) -> Registry[Base]:
    return Registry("router", GROUP, {"builtin": f"{__name__}:Mine", **builtins})


def test_a_builtin_is_imported_when_it_is_first_asked_for() -> None:
    lazy = registry(broken="no.such.module:Class")
    assert lazy["builtin"] is Mine
    assert "broken" in lazy
    with pytest.raises(ModuleNotFoundError):
        lazy["broken"]


def test_a_user_can_add_replace_and_remove() -> None:
    names = registry()
    names["mine"] = Mine
    assert names["mine"] is Mine
    names["builtin"] = Base
    assert names["builtin"] is Base
    del names["mine"]
    assert "mine" not in names
    assert "builtin" in list(names)
    assert len(names) == len(list(names))


def test_an_unknown_name_gives_the_nearest_and_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"Unknown router 'biultin' \(did you mean 'builtin'\?\)\. Known: builtin"
    ) as caught:
        registry()["biultin"]
    assert isinstance(caught.value, KeyError)
    with pytest.raises(UnknownNameError):
        del registry()["nothing"]
    assert registry().get("nothing") is None


@pytest.mark.parametrize(("name", "value"), [("", Mine), (3, Mine), ("mine", Mine()), ("mine", "module:Mine")])
def test_only_classes_under_proper_names_can_be_added(name: object, value: object) -> None:
    with pytest.raises(ConfigError):
        registry()[name] = value  # type: ignore[index, assignment]


def test_another_package_brings_a_router_by_an_entry_point(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        "longest-router",
        "longest = longest_router:LongestRouter",
        "from routellm import Router\n\n"
        "class LongestRouter(Router):\n"
        "    def __init__(self, limit: int = 100) -> None:\n"
        "        self.limit = limit\n\n"
        "    def calculate_strong_win_rate(self, prompt: str) -> float:\n"
        "        return min(len(prompt) / self.limit, 1.0)\n",
    )
    monkeypatch.setattr(ROUTER_CLS, "_discovered", False)
    monkeypatch.setattr(ROUTER_CLS, "_entries", dict(ROUTER_CLS._entries))
    assert "longest" in ROUTER_CLS
    assert "longest_router" not in sys.modules, "naming a router must not import it"
    assert build_router("longest", {"limit": 10}).calculate_strong_win_rate("12345") == 0.5
    with pytest.raises(ConfigError, match=r"takes no argument 'limits' \(did you mean 'limit'\?\)"):
        build_router("longest", {"limits": 10})


def test_two_packages_under_one_name_are_both_named(install: Install) -> None:
    install("first-package", "same = first_module:Mine", "class Mine: ...")
    install("second-package", "same = second_module:Mine", "class Mine: ...")
    with pytest.raises(ConfigError, match=r"Two packages register the router 'same'") as caught:
        list(registry())
    assert "first-package" in str(caught.value)
    assert "second-package" in str(caught.value)


def test_a_package_that_takes_a_builtin_name_is_named(install: Install) -> None:
    install("greedy-package", "builtin = greedy_module:Mine", "class Mine: ...")
    with pytest.raises(ConfigError, match="greedy-package registers the router 'builtin', which routellm itself provides"):
        list(registry())


def test_a_plugin_that_does_not_load_is_named(install: Install) -> None:
    install("broken-package", "broken = broken_module:Mine", "raise RuntimeError('out of order')")
    with pytest.raises(
        ConfigError, match=r"router 'broken' \(broken_module:Mine\) of broken-package can't be loaded: out of order"
    ):
        registry()["broken"]


def test_a_plugin_that_is_no_class_is_named(install: Install) -> None:
    install("odd-package", "odd = odd_module:value", "value = 3")
    with pytest.raises(ConfigError, match="router 'odd' of odd-package is not a class"):
        registry()["odd"]


def test_what_a_user_registers_must_be_a_router_by_the_time_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTER_CLS, "mine", Mine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"not a subclass of routellm\.Router"):
        build_router("mine")


def test_a_router_that_takes_any_argument_gets_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Open(Router):
        def __init__(self, **arguments: object) -> None:
            self.arguments = arguments

        def calculate_strong_win_rate(self, prompt: str) -> float:
            return 0.5

    monkeypatch.setitem(ROUTER_CLS, "open", Open)
    router = build_router("open", {"anything": 1})
    assert isinstance(router, Open)
    assert router.arguments == {"anything": 1}
