"""Running the application under uvicorn: in this process, or in several that share one socket."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from routellm.config import read_environment
from routellm.errors import ConfigError, MissingExtraError, RouteLLMError
from routellm.serving.gateway import Gateway
from routellm.serving.services import Services, Shared
from routellm.serving.settings import Settings
from routellm.telemetry.logs import formatter_for

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp
    from uvicorn.supervisors import Multiprocess

logger = logging.getLogger("routellm.serving")

_STARTUP_FAILURE = 3  # the exit status on which uvicorn's supervisor gives up instead of starting the worker again
_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep idle connections, so that none is closed under a request
_START_SECONDS = 30.0
_GARBAGE = 50_000  # new objects before the collector looks at them; at the usual 700 it takes 5 to 8% of the server's time
_GRACE_SECONDS = 25  # for open streams at shutdown; container platforms kill after 30

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "routellm": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}


def check_installed() -> None:
    """Raise MissingExtraError where the extra `serve` is not installed."""
    try:
        import httptools  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("The server", "serve") from error


def bind(host: str, port: int) -> socket.socket:
    """A listening socket: connections made from now on wait until the server takes them.

    Raises:
        ConfigError: the host does not resolve, or is not an address of this machine.
        RouteLLMError: the port is taken, or may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"The host {host!r} is no address: {error}. Try --host 127.0.0.1.") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        advice = {
            errno.EADDRINUSE: "Stop the program that uses it, or choose another with --port (0 takes a free one).",
            errno.EADDRNOTAVAIL: "Give an address of this machine as --host, or 0.0.0.0 for all of them.",
            errno.EACCES: "Choose one from 1024 on with --port: those below take the administrator's rights.",
        }
        raise RouteLLMError(
            f"Can't listen on {host}, port {port}: {error.strerror or error}. {advice.get(error.errno or 0, '')}".rstrip()
        ) from error
    listener.set_inheritable(True)
    return listener


def serve(services: Services, shared: Shared, environ: Mapping[str, str], listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; open requests may finish first.

    With more than one worker, each of them loads everything again from the settings, and `services` are let go of here.
    """
    settings = services.settings
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn hands the signal on to these when it is done
            signal.signal(number, _exit)
    _allow_many_connections()
    if settings.workers > 1:
        services.release()
        config = configure(functools.partial(_worker_app, settings, shared), settings, factory=True)
        _supervisor(config, listener).run()
        return
    import uvicorn

    from routellm.serving.app import assemble

    app = assemble(services, lambda changed: Gateway.load(changed, environ, shared.table))
    _freeze()
    uvicorn.Server(configure(app, settings)).run([listener])


def _supervisor(config: uvicorn.Config, listener: socket.socket) -> Multiprocess:
    from uvicorn.supervisors import Multiprocess

    class Supervisor(Multiprocess):
        def handle_hup(self) -> None:
            """Each worker reads its configuration again, without a restart; see `live.py`."""
            for worker in self.processes:
                # One that is still starting has no handler yet, and the signal would end it.
                if worker.wait_until_ready(_START_SECONDS, self.should_exit) and worker.pid is not None:
                    os.kill(worker.pid, signal.SIGHUP)

        def terminate_all(self) -> None:
            """This process has the socket open too: connections would go on to be made, for nobody to answer."""
            for listening in self.sockets:
                listening.close()
            super().terminate_all()

    return Supervisor(config, [listener])


def configure(app: Any, settings: Settings, *, factory: bool = False) -> uvicorn.Config:
    """How uvicorn is run here."""
    import uvicorn

    from routellm.serving.protocol import HttpProtocol

    return uvicorn.Config(
        app,
        factory=factory,
        workers=settings.workers,
        interface="asgi3",
        http=cast(Any, functools.partial(HttpProtocol, receive_seconds=settings.gateway.admission.receive_seconds)),
        ws="none",
        lifespan="on",
        log_config={**_LOGGING, "formatters": {"line": {"()": formatter_for, "log_format": settings.log_format}}},
        access_log=False,  # with --verbose the application logs each request, with its decision
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _worker_app(settings: Settings, shared: Shared) -> ASGIApp:
    from routellm.serving.app import assemble

    environ = read_environment()

    def load(changed: Settings) -> Gateway:
        return Gateway.load(changed, environ, shared.table)

    try:
        app = assemble(Services(load(settings), settings, environ, shared), load)
    except RouteLLMError as error:
        logger.error("a worker can't start: %s", error)
        sys.exit(_STARTUP_FAILURE)
    threading.Thread(target=_end_with_parent, name="routellm-orphan", daemon=True).start()
    _freeze()
    return app


def _end_with_parent() -> None:
    """A worker whose supervisor was killed would go on to hold the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one: each request under way takes two, and 1,024 are soon used up."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _freeze() -> None:
    """Take what is loaded out of the garbage collector's rounds: it stays for good. What comes after leaves few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE, 20, 20)


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
