"""A real PostgreSQL for tests, in a temporary folder, on a free port of loopback, run by a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import pytest


def programs() -> Path:
    """The folder with `initdb` and `pg_ctl`. Where there is none the test skips on a laptop and fails in CI."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        message = "needs PostgreSQL's programs (Debian: apt-get install postgresql)"
        if os.environ.get("CI") in ("true", "1"):
            pytest.fail(f"CI must have PostgreSQL: {message}")
        pytest.skip(message)
    return folders[-1]


class PostgresServer:
    """A context manager: a cluster that is made, started, and thrown away. `url` is its database, `port` where it listens."""

    def __init__(self) -> None:
        self._programs = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="routellm-pg-"))
        self._data = self._folder / "data"
        self._prefix: list[str] = []
        self.user = pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:  # as whom PostgreSQL refuses to run
            names = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in names else "nobody"
            self._prefix = ["runuser", "-u", self.user, "--"]
            shutil.chown(self._folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The database by way of another port."""
        return f"postgresql://{self.user}:not-asked-for@127.0.0.1:{port}/postgres"

    def __enter__(self) -> Self:
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it, again where it was stopped."""
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self._folder / "log"), "-o", options)

    def stop(self) -> None:
        """Stop it as an administrator does: connections are cut."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self._data), check=False)

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        command = [*self._prefix, str(self._programs / program), *arguments]
        done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60, check=False)
        assert done.returncode == 0 or not check, f"{program} failed; see {self._folder / 'log'}"
