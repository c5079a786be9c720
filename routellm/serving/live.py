"""The gateway that serves now, and how another takes its place while the server runs.

A request keeps the gateway that it began with, so that a change of the configuration breaks off nothing: the old one is
closed when its last request is done.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable

from routellm.config import stamp_of
from routellm.errors import RouteLLMError
from routellm.serving.gateway import Gateway
from routellm.serving.settings import Settings, reread

logger = logging.getLogger("routellm.serving")

_POLL_SECONDS = 1.0


class Live:
    """Holds the gateway in force."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._retired: set[asyncio.Task[None]] = set()

    def replace(self, gateway: Gateway) -> None:
        """Put `gateway` in force; the one before is closed as soon as it is idle."""
        before, self.gateway = self.gateway, gateway
        task = asyncio.get_running_loop().create_task(before.close_when_idle())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def aclose(self) -> None:
        """Close the gateway in force, and those before it that are not closed yet."""
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        await self.gateway.aclose()


class Reloader:
    """Reads the configuration again upon SIGHUP, and when its file changes; one that can't be used changes nothing.

    Routers are loaded anew, so that SIGHUP also takes up a checkpoint that was trained in the meantime. What the command line
    says stays as it is.

    Args:
        settings: what the process was started with.
        load: makes a gateway, in a thread.
        use: puts it in force.
    """

    def __init__(self, settings: Settings, load: Callable[[Settings], Gateway], use: Callable[[Gateway], None]) -> None:
        self._settings, self._load, self._use = settings, load, use
        self._wanted = asyncio.Event()
        self._stamp = settings.config_stamp

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        by_signal = hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread()
        if by_signal:
            loop.add_signal_handler(signal.SIGHUP, self._wanted.set)
        try:
            while True:
                await self._change()
                await self.reload()
        finally:
            if by_signal:
                loop.remove_signal_handler(signal.SIGHUP)

    async def reload(self) -> bool:
        """Read the configuration and load everything again; whether it could be used."""
        self._wanted.clear()
        self._stamp = self._look()
        where = self._settings.config_path or "the command line's settings"
        try:
            gateway = await asyncio.to_thread(lambda: self._load(reread(self._settings)))
        except RouteLLMError as error:
            logger.error("%s can't be used, what was loaded before stays in force: %s", where, error)
            return False
        self._use(gateway)
        logger.warning("loaded %s again, for requests from now on", where)
        return True

    async def _change(self) -> None:
        """Return when a signal came, or the file has changed and then stayed the same for one round."""
        seen = self._stamp
        while not self._wanted.is_set():
            try:
                await asyncio.wait_for(self._wanted.wait(), _POLL_SECONDS)
            except TimeoutError:
                before, seen = seen, self._look()
                if seen is not None and seen == before != self._stamp:
                    return

    def _look(self) -> tuple[int, int, int] | None:
        """None also between two versions of the file, where there is none; what was loaded then stays in force."""
        path = self._settings.config_path
        return None if path is None else stamp_of(path)
