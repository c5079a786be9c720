"""Several worker processes count together, and die at any time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from routellm.errors import ConfigError
from routellm.telemetry.cells import Cells
from routellm.telemetry.metrics import Gauges, Metrics, shared_directory
from tests.telemetry.records import metrics, record
from tests.telemetry.test_metrics import value

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0
REQUEST = {"api": "chat", "model": "openai/big", "code": "200", "outcome": "answered"}

# Counts so many requests as each line of its input says, and says when it has.
WORKER = """
import sys
from pathlib import Path
from routellm.telemetry.metrics import Gauges
from tests.telemetry.records import metrics, record

counted = metrics(directory=Path(sys.argv[1]))
counted.publish(Gauges(in_flight=5))
for line in sys.stdin:
    for _ in range(int(line)):
        counted.observe(record(), dollars=0.5)
    print(line, end="", flush=True)
"""


class Worker:
    """Another process that counts."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )

    def begin(self, requests: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % requests)
        self._process.stdin.flush()

    def wait(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the worker died"

    def count(self, requests: int) -> None:
        self.begin(requests)
        self.wait()

    def end(self, number: int = signal.SIGKILL) -> None:
        with self._process as process:
            os.kill(process.pid, number)
            process.wait(PATIENCE)


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[[], Metrics]]:
    """Makes this process one more worker."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(metrics(directory=tmp_path)))


def total(of: Metrics) -> float:
    return value(of, "routellm_requests_total", **REQUEST) or 0.0


def test_what_a_killed_worker_counted_stays_and_its_state_goes(tmp_path: Path, join: Callable[[], Metrics]) -> None:
    here = join()
    here.observe(record())
    here.publish(Gauges(in_flight=1))
    worker = Worker(tmp_path)
    worker.count(7)
    assert total(here) == 8
    assert value(here, "routellm_requests_in_flight") == 6
    assert value(here, "routellm_workers") == 2

    worker.end(signal.SIGKILL)
    assert total(here) == 8
    assert value(here, "routellm_cost_dollars_total", model="openai/big") == 3.5
    assert value(here, "routellm_requests_in_flight") == 1
    assert value(here, "routellm_workers") == 1


def test_a_new_worker_goes_on_where_a_dead_one_ended(tmp_path: Path, join: Callable[[], Metrics]) -> None:
    here = join()
    for expected in (3, 6, 9):
        worker = Worker(tmp_path)
        worker.count(3)
        worker.end()
        assert total(here) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.cells", "0.index", "1.cells", "1.index"]


def test_a_file_taken_over_tells_nothing_of_the_dead_workers_state(join: Callable[[], Metrics]) -> None:
    before = join()
    before.publish(Gauges(in_flight=9, breakers={("openai/big", "one"): "open"}, ledger_buffered=4, ledger_dropped=2))
    before.close()
    after = join()
    after.publish(Gauges(ledger_buffered=0, ledger_dropped=1))
    assert value(after, "routellm_requests_in_flight") == 0
    assert value(after, "routellm_breaker_state", model="openai/big", endpoint="one", state="open") == 0
    assert value(after, "routellm_ledger_dropped_records_total") == 3


def test_sums_never_fall_while_workers_count_and_any_of_them_tells(tmp_path: Path, join: Callable[[], Metrics]) -> None:
    workers = [Worker(tmp_path) for _ in range(2)]
    tellers = [join(), join()]
    for worker in workers:
        worker.count(1)
        worker.begin(10_000)
    last = 0.0
    for number in range(25):
        now = total(tellers[number % 2])
        assert now >= last
        last = now
    for worker in workers:
        worker.wait()
        worker.end()
    assert [total(teller) for teller in tellers] == [20_002.0] * 2


def test_a_line_that_its_writer_did_not_live_to_end_is_no_row(tmp_path: Path) -> None:
    first = Cells(tmp_path)
    first.values[first.row("a", ("x",), 1)] = 3.0
    first.close()
    with (tmp_path / "0.index").open("ab") as index:
        index.write(b'["b",["y"')
    with closing(Cells(tmp_path)) as second:
        second.values[second.row("c", (), 2) + 1] = 4.0
        (page,) = second.read()
    assert {row: list(values) for row, values in page.rows.items()} == {("a", ("x",)): [3.0], ("c", ()): [0.0, 4.0]}


def test_the_same_row_is_the_same_place(tmp_path: Path) -> None:
    for directory in (None, tmp_path):
        with closing(Cells(directory)) as cells:
            place = cells.row("a", ("x",), 3)
            assert cells.row("a", ("x",), 3) == place
            assert cells.row("a", ("y",), 3) == place + 3
            assert cells.rows("a") == [place, place + 3]


def test_where_no_room_is_left_counting_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    cells = Cells()
    last = cells.row("vast", (), len(cells.values) - 100)
    spare = cells.row("late", ("x",), 50)
    cells.values[spare] += 1.0
    assert spare < last
    assert cells.row("late", ("x",), 50) == spare
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    (page,) = cells.read()
    assert list(page.rows) == [("vast", ())]


def test_a_full_disk_stops_no_counting_and_leaves_no_half_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Cells(tmp_path)) as cells:
        cells.values[cells.row("a", ("x",), 1)] = 3.0
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "0.index").stat().st_size + 4, limits[1]))
        try:
            spare = cells.row("b", ("y",), 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        cells.values[spare] += 1.0
        cells.values[cells.row("c", ("z",), 1)] = 5.0
        (page,) = cells.read()
    assert "('y',) is not counted" in caplog.text
    assert {row: list(values) for row, values in page.rows.items()} == {("a", ("x",)): [3.0], ("c", ("z",)): [5.0]}


def test_a_server_does_not_start_to_count_where_the_disk_is_full(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ConfigError, match="can't hold metrics: File too large"):
            Cells(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing.* can't hold metrics: No such file"):
        metrics(directory=tmp_path / "missing")


def test_one_worker_needs_no_directory_and_several_share_one_that_goes_with_the_server() -> None:
    with shared_directory(1) as none:
        assert none is None
    with shared_directory(2) as shared:
        assert shared is not None
        assert shared.stat().st_mode & 0o777 == 0o700
        metrics(directory=shared).close()
    assert not shared.exists()
