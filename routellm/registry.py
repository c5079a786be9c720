"""Lazy name -> class mappings: built-ins, entry points of other packages, and what a user adds at run time.

A registry is a mutable mapping, so that `ROUTER_CLS["mine"] = MyRouter` works. A built-in is held as `"module:Class"` and
imported when it is first asked for: naming a router never imports another one's libraries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from routellm.errors import ConfigError, UnknownNameError

T = TypeVar("T")


class Registry(MutableMapping[str, type[T]], Generic[T]):
    """A mapping of names to subclasses of one abstract class.

    Args:
        kind: what is registered, for messages ("router").
        group: the entry-point group that other packages use ("routellm.routers").
        builtins: name -> "module:Class".
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, str]) -> None:
        self._kind = kind
        self._group = group
        self._entries: dict[str, str | type[T] | EntryPoint] = dict(builtins)
        self._discovered = False

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._entries:
            self._discover()
        try:
            entry = self._entries[name]
        except KeyError:
            raise UnknownNameError(self._kind, name, self._entries) from None
        if isinstance(entry, EntryPoint):
            entry = self._load_plugin(entry)
        elif isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast(type[T], getattr(import_module(module), attribute))
        self._entries[name] = entry
        return entry

    def __setitem__(self, name: str, value: type[T]) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"A {self._kind}'s name must be a non-empty string, not {name!r}.")
        if not isinstance(value, type):
            raise ConfigError(f"{self._kind} {name!r}: register the class itself, not {value!r}.")
        self._entries[name] = value

    def __delitem__(self, name: str) -> None:
        self._discover()
        if name not in self._entries:
            raise UnknownNameError(self._kind, name, self._entries)
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(list(self._entries))

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        if name not in self._entries:
            self._discover()
        return name in self._entries

    def _load_plugin(self, entry: EntryPoint) -> type[T]:
        try:
            loaded = entry.load()
        except Exception as error:  # whatever a plugin raises on import, its user needs its name
            raise ConfigError(
                f"{self._kind} {entry.name!r} ({entry.value}) of {_owner(entry)} can't be loaded: {error}"
            ) from error
        if not isinstance(loaded, type):
            raise ConfigError(f"{self._kind} {entry.name!r} of {_owner(entry)} is not a class: {entry.value}")
        return cast(type[T], loaded)

    def _discover(self) -> None:
        if self._discovered:
            return
        for entry in entry_points(group=self._group):
            held = self._entries.get(entry.name)
            if held is None:
                self._entries[entry.name] = entry
            elif isinstance(held, EntryPoint) and held.value != entry.value:
                raise ConfigError(
                    f"Two packages register the {self._kind} {entry.name!r}: {_owner(held)}, {_owner(entry)}. Uninstall one."
                )
            elif isinstance(held, str):
                raise ConfigError(
                    f"{_owner(entry)} registers the {self._kind} {entry.name!r}, which routellm itself provides. "
                    f"It must choose another name."
                )
        self._discovered = True


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
