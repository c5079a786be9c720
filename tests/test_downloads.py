"""Downloads from a live server on loopback that can give ranges or not, break off, and lie."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from routellm.downloads import RemoteFile, fetch, mirror_path
from routellm.errors import DataError, MissingExtraError

CONTENT = bytes(range(256)) * 40
PATH = "owner/repo/c0ffee/data/table.csv"
PATIENCE = 20.0


class FileServer:
    """Serves `content` at any path.

    Attributes:
        ranges: whether it answers a range with that range; else it sends the whole file.
        shift: how far off the start of its ranges is.
        cuts: for each answer in turn, after how many bytes the connection is cut; None for never.
        status: an error to answer everything with.
        gate: if set, an answer waits for it.
        asked: the Range header of each request, None where it had none.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.ranges = True
        self.shift = 0
        self.cuts: list[int | None] = []
        self.status = 200
        self.gate: threading.Event | None = None
        self.arrived = threading.Event()
        self.asked: list[str | None] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def file(self, content: bytes = CONTENT, path: str = PATH) -> RemoteFile:
        return RemoteFile(self.url + path, len(content), hashlib.sha256(content).hexdigest())

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.asked.append(asked)
        self.arrived.set()
        if self.gate is not None:
            assert self.gate.wait(PATIENCE)
        start = 0
        if asked and self.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + self.shift  # type: ignore[index]
        status = self.status
        if status == 200 and asked and self.ranges:
            status = 206 if start < len(self.content) else 416
        body = self.content[start:] if status in (200, 206) else b"no"
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        handler.wfile.write(body[:cut])
        if cut is not None:
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


@pytest.fixture
def server() -> Iterator[FileServer]:
    running = FileServer()
    yield running
    running.close()


def part_of(cache: Path) -> Path:
    return cache / "data" / (PATH + ".part")


def test_a_file_arrives_whole_and_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    (first,) = fetch([server.file()], cache_dir=tmp_path)
    (second,) = fetch([server.file()], cache_dir=tmp_path)
    assert first == second == tmp_path / "data" / PATH
    assert first.read_bytes() == CONTENT
    assert server.asked == [None]
    assert not part_of(tmp_path).exists()


def test_paths_come_in_the_order_of_the_files(server: FileServer, tmp_path: Path) -> None:
    files = [server.file(path=f"a/{name}") for name in ("z", "b", "m")]
    assert [path.name for path in fetch(files, cache_dir=tmp_path)] == ["z", "b", "m"]
    assert fetch([], cache_dir=tmp_path) == []


def test_the_user_s_cache_is_the_default(server: FileServer, private_environment: Path) -> None:
    (path,) = fetch([server.file()])
    assert path == private_environment / ".cache" / "routellm" / "data" / PATH


def test_a_download_that_breaks_off_is_taken_up_in_the_same_call(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [4000, 500]
    (path,) = fetch([server.file()], cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=4000-", "bytes=4500-"]


def test_a_download_that_keeps_breaking_off_is_taken_up_by_the_next_call(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [4000, 0]
    with pytest.raises(DataError, match=r"can't be downloaded: .* 4,000 of 10,240 bytes are here, and the next call goes on"):
        fetch([server.file()], cache_dir=tmp_path)
    assert part_of(tmp_path).stat().st_size == 4000
    assert not (tmp_path / "data" / PATH).exists()
    (path,) = fetch([server.file()], cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=4000-"


def test_a_server_without_ranges_starts_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [4000]
    (path,) = fetch([server.file()], cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=4000-"]


def test_a_range_from_elsewhere_is_not_appended(server: FileServer, tmp_path: Path) -> None:
    server.cuts, server.shift = [4000], 7
    (path,) = fetch([server.file()], cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=4000-", None]


@pytest.mark.parametrize("left_behind", [b"something else", CONTENT[::-1], CONTENT + b"more"])
def test_what_an_earlier_call_left_need_not_fit(server: FileServer, tmp_path: Path, left_behind: bytes) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(left_behind)
    (path,) = fetch([server.file()], cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_a_part_that_is_whole_needs_no_request(server: FileServer, tmp_path: Path) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(CONTENT)
    assert fetch([server.file()], cache_dir=tmp_path)[0].read_bytes() == CONTENT
    assert server.asked == []


def test_wrong_bytes_are_refused_with_both_hashes(server: FileServer, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(DataError) as caught:
        fetch([server.file()], cache_dir=tmp_path)
    message = str(caught.value)
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in message
    assert "ROUTELLM_DATA_MIRROR" in message
    assert list((tmp_path / "data").rglob("table*")) == []


def test_a_file_cut_short_at_its_source_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.content = CONTENT[:5000]
    with pytest.raises(DataError, match="less than the whole file"):
        fetch([server.file()], cache_dir=tmp_path)
    assert not (tmp_path / "data" / PATH).exists()


def test_a_larger_file_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.content = CONTENT * 1000
    with pytest.raises(DataError, match="larger than 10,240 bytes"):
        fetch([server.file()], cache_dir=tmp_path)
    assert not part_of(tmp_path).exists()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_error_of_the_server_is_named(server: FileServer, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=f"the server answered {status}"):
        fetch([server.file()], cache_dir=tmp_path)


def test_without_a_network_the_message_says_what_to_do(server: FileServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    file = RemoteFile(f"http://127.0.0.1:{port}/{PATH}", 1, "0" * 64)
    with pytest.raises(DataError, match=rf"can't be downloaded.*check the network.*{PATH}.*ROUTELLM_DATA_MIRROR"):
        fetch([file], cache_dir=tmp_path)


def test_a_cache_that_can_t_be_written_is_named(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"can't be kept in .*cache.*XDG_CACHE_HOME.*ROUTELLM_DATA_MIRROR"):
        fetch([server.file()], cache_dir=tmp_path / "cache")
    assert server.asked == []


def test_a_copy_that_was_altered_since_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    (path,) = fetch([server.file()], cache_dir=tmp_path)
    path.write_bytes(CONTENT[::-1])
    (path,) = fetch([server.file()], cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_mirror_stands_in_for_network_and_cache(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "mirror" / PATH).parent.mkdir(parents=True)
    (tmp_path / "mirror" / PATH).write_bytes(CONTENT)
    paths = fetch([server.file()], cache_dir=tmp_path / "cache", mirror=tmp_path / "mirror")
    assert paths == [tmp_path / "mirror" / PATH]
    assert server.asked == []
    assert not (tmp_path / "cache").exists()


def test_the_cache_of_one_machine_is_a_mirror_for_another(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch([server.file()], cache_dir=tmp_path)
    monkeypatch.setenv("ROUTELLM_DATA_MIRROR", str(tmp_path / "data"))
    assert fetch([server.file()], cache_dir=tmp_path / "other")[0].read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_mirror_without_the_file_is_an_error(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"does not give {PATH}.*unset ROUTELLM_DATA_MIRROR"):
        fetch([server.file()], cache_dir=tmp_path, mirror=tmp_path)
    assert server.asked == []


@pytest.mark.parametrize("held", [CONTENT[:100], CONTENT[::-1], b""])
def test_a_mirror_with_another_file_is_an_error(server: FileServer, tmp_path: Path, held: bytes) -> None:
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_bytes(held)
    with pytest.raises(DataError) as caught:
        fetch([server.file()], mirror=tmp_path)
    assert f"{len(held):,} bytes and sha256 {hashlib.sha256(held).hexdigest()}" in str(caught.value)
    assert hashlib.sha256(CONTENT).hexdigest() in str(caught.value)


def test_two_processes_download_once(server: FileServer, tmp_path: Path) -> None:
    server.gate = threading.Event()
    file = server.file()
    program = (
        "from routellm.downloads import *; "
        f"print(fetch([RemoteFile({file.url!r}, {file.size}, {file.sha256!r})], cache_dir={str(tmp_path)!r})[0])"
    )

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start() as first:
        assert server.arrived.wait(PATIENCE)
        with start() as second:
            assert second.stderr is not None
            assert "Waiting for another process" in second.stderr.readline()
            server.gate.set()
            outputs = [process.communicate(timeout=PATIENCE)[0] for process in (first, second)]
    assert outputs == [f"{tmp_path / 'data' / PATH}\n"] * 2
    assert (tmp_path / "data" / PATH).read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_missing_lock_library_has_its_install_line(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingExtraError, match=r"routellm\[eval\]"):
        fetch([server.file()], cache_dir=tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/a.csv",
        "file:///etc/passwd",
        "https://host",
        "https://host/../a",
        "https://host/a/%2e%2e/b",
        "https://h/a%5cb",
    ],
)
def test_an_address_that_is_no_place_in_a_mirror_is_refused(url: str) -> None:
    with pytest.raises(DataError, match="can't be downloaded"):
        mirror_path(RemoteFile(url, 1, ""))


def test_a_raw_file_s_place_in_a_mirror() -> None:
    assert mirror_path(RemoteFile("https://raw.githubusercontent.com/o/r/abc/d%20e/f.csv", 1, "")) == "o/r/abc/d e/f.csv"
