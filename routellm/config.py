"""The only reader of configuration files and of the environment.

A configuration is a mapping of router names to the keyword arguments of their constructors::

    mf:
      checkpoint_path: ./my-router
    random:
      seed: 7

One further key, `gateway`, holds what concerns the server alone; everything else passes it by.

Nothing here runs at import; entry points pass what they read on as values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from routellm.errors import ConfigError, did_you_mean

RouterConfig: TypeAlias = Mapping[str, Mapping[str, Any]]

GATEWAY = "gateway"
"""The top-level key that is no router's name."""


def read_environment() -> Mapping[str, str]:
    """A copy of the environment, taken where a program starts."""
    return dict(os.environ)


def load_config(path: str | Path, known_routers: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the routers' arguments from a YAML file and check their shape.

    Raises:
        ConfigError: the file can't be read, is not YAML, or names a router that nobody registered.
    """
    return check_config(_read(path), known_routers, str(path))


def load_gateway_section(path: str | Path) -> dict[str, Any]:
    """Read what the YAML file says under `gateway`; nothing where it has no such key.

    Raises:
        ConfigError: the file can't be read or is not YAML, or the section does not map names to values.
    """
    return _section(_read(path), path)


def load_server_config(path: str | Path, known_routers: Iterable[str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """`load_config` and `load_gateway_section` of one reading, so that both are of the same version of the file."""
    content = _read(path)
    return check_config(content, known_routers, str(path)), _section(content, path)


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """For a setting's `__post_init__`; None, where a setting may be that, is in any range.

    Raises:
        ValueError: `value` does not lie from `low` to `high`.
    """
    if value is not None and not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{name} is {value!r}; it must be from {low:g} to {high:g}")


def _section(content: object, path: str | Path) -> dict[str, Any]:
    section = content.get(GATEWAY) if isinstance(content, Mapping) else None
    if section is None:
        return {}
    if not isinstance(section, Mapping) or not all(isinstance(key, str) for key in section):
        raise ConfigError(f"{path}: {GATEWAY}: must map names to values, not be {section!r}.")
    return dict(section)


def _read(path: str | Path) -> object:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The configuration file {str(path)!r} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The configuration file {str(path)!r} is not UTF-8 text: {error}") from error
    try:
        content: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The configuration file {str(path)!r} is not valid YAML: {_told(error)}.") from None
    return {} if content is None else content


def stamp_of(path: str | Path) -> tuple[int, int, int] | None:
    """What changes with a file: taken before it is read, it tells later whether to read it again. None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def check_config(content: object, known_routers: Iterable[str], where: str = "config") -> dict[str, dict[str, Any]]:
    """Check that `content` maps known router names to keyword arguments, and return it as plain dicts without `gateway`.

    Raises:
        ConfigError: it does not; `where` says in the message what was read.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: must map router names to their arguments, not be a {type(content).__name__}.")
    known = list(known_routers)
    checked: dict[str, dict[str, Any]] = {}
    for name, arguments in content.items():
        if name == GATEWAY:
            continue
        if name not in known:
            raise ConfigError(f"{where}: unknown router {name!r}{did_you_mean(str(name), known)}. Known: {', '.join(known)}.")
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
            raise ConfigError(f"{where}: {name}: must map argument names to values, not be {arguments!r}.")
        checked[str(name)] = dict(arguments)
    return checked


def _told(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the line itself: a key may stand in it."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or "it can't be read"
    return what if mark is None else f"{what}, line {mark.line + 1}, column {mark.column + 1}"
