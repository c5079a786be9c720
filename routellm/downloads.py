"""Pinned downloads into the user's cache.

A file is pinned by its address, its size and its sha256, so a copy is either exactly that file or not there at all. A copy is
checked each time it is asked for; one that was altered since is fetched anew. What has come in of a file lies beside its place
as `NAME.part`, and a download that broke off goes on from there.

The cache is laid out like a mirror: the path of the address below one folder. A copy of either serves as the mirror of a
machine without network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from routellm.config import read_environment
from routellm.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import httpx2
    from rich.progress import Progress

MIRROR_VARIABLE = "ROUTELLM_DATA_MIRROR"

_ATTEMPTS = 5
"""How often one call takes up a download that breaks off, as long as each time something came in."""
_CONNECT_SECONDS = 15.0
_READ_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A public file, pinned: its address, its size in bytes, and its sha256 (hexadecimal)."""

    url: str
    size: int
    sha256: str


def mirror_path(file: RemoteFile) -> str:
    """Where a file lies below a mirror: OWNER/REPO/COMMIT/PATH for a raw-file address.

    Raises:
        DataError: the address is none of http or https, or has no path that can be a file's.
    """
    address = urlsplit(file.url)
    parts = [part for part in unquote(address.path).split("/") if part]
    if address.scheme not in ("http", "https") or not parts or any(part in (".", "..") or "\\" in part for part in parts):
        raise DataError(f"{file.url!r} can't be downloaded: it must be a file's http or https address, without `..` in it.")
    return "/".join(parts)


def fetch(files: Sequence[RemoteFile], *, cache_dir: str | Path | None = None, mirror: str | Path | None = None) -> list[Path]:
    """Local copies of pinned files, in their order. Safe to call from several processes at once.

    Args:
        files: what to fetch.
        cache_dir: the cache folder, in whose `data` copies are kept; None for the user's own.
        mirror: a folder that stands in for the network and for the cache; files are used where they lie in it. None for the
            one that the environment variable ROUTELLM_DATA_MIRROR names, or none at all.

    Raises:
        DataError: a file is not in the mirror, can't be downloaded, is not the pinned one, or the cache can't be written.
        MissingExtraError: the extra `eval` is not installed.
    """
    mirror = mirror or read_environment().get(MIRROR_VARIABLE)
    if mirror:
        return [_from_mirror(Path(mirror).expanduser(), file) for file in files]
    folder = (user_cache() if cache_dir is None else Path(cache_dir).expanduser()) / "data"
    targets = [folder / mirror_path(file) for file in files]
    try:
        if not all(map(_is_pinned, targets, files)):
            with _alone(folder):
                # Asked again: another process may have brought them in the meantime.
                pairs = zip(files, targets, strict=True)
                _download_all([(file, target) for file, target in pairs if not _is_pinned(target, file)])
    except OSError as error:
        raise DataError(
            f"Downloads can't be kept in {str(folder)!r}: {error}. Make it writable, set XDG_CACHE_HOME to another folder, or "
            f"{MIRROR_VARIABLE} to a folder that has the files."
        ) from error
    return targets


def user_cache() -> Path:
    """The user's own cache folder of this package."""
    from platformdirs import user_cache_path

    return user_cache_path("routellm")


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_mirror(mirror: Path, file: RemoteFile) -> Path:
    path = mirror / mirror_path(file)
    try:
        size = path.stat().st_size
        found = sha256(path)
    except OSError as error:
        raise DataError(
            f"The mirror {str(mirror)!r} does not give {mirror_path(file)}: {error.strerror}. Put the file of {file.url} "
            f"there, or unset {MIRROR_VARIABLE} to download it."
        ) from error
    if found != file.sha256:
        raise DataError(
            f"{str(path)!r} is not the pinned file: it has {size:,} bytes and sha256 {found}; expected {file.size:,} bytes "
            f"and {file.sha256}. Replace it by the file of {file.url}."
        )
    return path


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_pinned(path: Path, file: RemoteFile) -> bool:
    return _size(path) == file.size and path.is_file() and sha256(path) == file.sha256


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from downloading into `folder` at the same time."""
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise MissingExtraError("Downloading a benchmark", "eval") from error
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        from rich.console import Console

        Console(stderr=True).print(f"Waiting for another process that downloads into {folder}", markup=False, soft_wrap=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download_all(missing: Sequence[tuple[RemoteFile, Path]]) -> None:
    import httpx2

    timeout = httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
    with _progress() as progress, httpx2.Client(timeout=timeout, follow_redirects=True) as client:
        task = progress.add_task("Downloading", total=sum(file.size for file, _ in missing))
        done = 0

        def report(size: int) -> None:
            progress.update(task, completed=done + size)

        for file, target in missing:
            _download(client, file, target, report)
            done += file.size


def _progress() -> Progress:
    """A bar on stderr where that is a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _download(client: httpx2.Client, file: RemoteFile, target: Path, report: Callable[[int], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    resumed = _size(part) > 0
    _complete(client, file, part, report)
    found = sha256(part)
    if found != file.sha256 and resumed:  # what lay there from an earlier call need not have been a part of this file
        part.unlink()
        _complete(client, file, part, report)
        found = sha256(part)
    if found != file.sha256:
        part.unlink()
        raise DataError(
            f"{file.url} gave another file than the pinned one: its sha256 is {found}, expected {file.sha256}. Something on "
            f"the way may have replaced it: try another network. {_offline(file)}"
        )
    part.replace(target)


def _complete(client: httpx2.Client, file: RemoteFile, part: Path, report: Callable[[int], object]) -> None:
    """Bring `part` to the pinned size, going on from what is there."""
    import httpx2

    why = "the server sent less than the whole file"
    for _ in range(_ATTEMPTS):
        before = _size(part)
        if before == file.size and part.is_file():
            return
        try:
            _transfer(client, file, part, report)
        except (httpx2.TransportError, httpx2.TooManyRedirects) as error:
            why = str(error).strip().rstrip(".") or type(error).__name__
            if _size(part) <= before:
                break
    if _size(part) != file.size:
        raise DataError(
            f"{file.url} can't be downloaded: {why}. {_size(part):,} of {file.size:,} bytes are here, and the next call goes "
            f"on from there: check the network and try again. {_offline(file)}"
        )


def _transfer(client: httpx2.Client, file: RemoteFile, part: Path, report: Callable[[int], object]) -> None:
    """One request: the rest of the file where the server can give it, else all of it."""
    have = _size(part)
    headers = {"accept-encoding": "identity"}
    if have:
        headers["range"] = f"bytes={have}-"
    with client.stream("GET", file.url, headers=headers) as response:
        starts = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
        if have and (response.status_code == 416 or (response.status_code == 206 and not (starts and int(starts[1]) == have))):
            part.unlink()  # it can't be gone on with; the next attempt starts again
            return
        if response.status_code not in (200, 206):
            raise DataError(f"{file.url} can't be downloaded: the server answered {response.status_code}. {_offline(file)}")
        if response.status_code == 200:
            have = 0
        with part.open("ab" if have else "wb") as out:
            for chunk in response.iter_raw():
                have += len(chunk)
                if have > file.size:
                    break
                out.write(chunk)
                report(have)
    if have > file.size:
        part.unlink()
        raise DataError(
            f"{file.url} gave another file than the pinned one: it is larger than {file.size:,} bytes. {_offline(file)}"
        )


def _offline(file: RemoteFile) -> str:
    return (
        f"For a machine without network, put the file at {mirror_path(file)} below a folder and set {MIRROR_VARIABLE} to that "
        f"folder."
    )
