"""Server-sent events come out the same however a stream is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import UpstreamError
from routellm.serving.apis.sse import EventReader


def read(*chunks: bytes) -> list[bytes]:
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
        (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
        (b"data:one\n\n", [b"one"]),
        (b"data:  one \n\n", [b" one "]),
        (b"data: one\ndata: two\n\n", [b"one\ntwo"]),
        (b"data: one\ndata\ndata: two\n\n", [b"one\n\ntwo"]),
        (b": ping\n\n: ping\ndata: one\n: ping\n\n", [b"one"]),
        (b"event: delta\nid: 3\nretry: 5\ndata: one\n\n", [b"one"]),
        (b"event: delta\n\ndata\n\ndata:\n\ndata: one\n\n", [b"one"]),
        (b"datas: no\nxdata: no\n data: no\ndata: one\n\n", [b"one"]),
        (b"\xef\xbb\xbfdata: one\n\n", [b"one"]),
        (b"data: \xff\x0b\x0c\x1c\x85\xe2\x80\xa8\n\n", [b"\xff\x0b\x0c\x1c\x85\xe2\x80\xa8"]),
        (b"\n\n\r\r\r\n\r\ndata: one\n\n\n", [b"one"]),
        (b"data: one\n\ndata: never ended\n", [b"one"]),
        (b"data: never ended", []),
        (b"", []),
    ],
)
def test_events_of_a_stream(stream: bytes, events: list[bytes]) -> None:
    assert read(stream) == events
    assert read(*(stream[index : index + 1] for index in range(len(stream)))) == events


_PIECES = st.sampled_from(
    [b"data: a", b"data:", b"data", b": c", b"event: e", b"b", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b""]
)


@given(st.lists(_PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 200), max_size=8))
def test_where_a_stream_is_cut_makes_no_difference(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:stop] for start, stop in pairwise(edges)]
    assert read(*chunks) == read(stream)


def test_an_event_is_given_out_with_the_chunk_that_ends_it() -> None:
    reader = EventReader()
    assert reader.feed(b"data: one\n") == []
    assert reader.feed(b"\r") == [b"one"]
    assert reader.feed(b"\ndata: two\n\nda") == [b"two"]
    assert reader.feed(b"ta: three\n\n") == [b"three"]


@pytest.mark.parametrize("piece", [b"x", b"data: 1234\n", b": comment\n"])
def test_an_event_over_the_limit_is_an_error(piece: bytes) -> None:
    reader = EventReader(limit=100)
    for _ in range(100 // len(piece)):
        assert reader.feed(piece) == []
    with pytest.raises(UpstreamError, match="over 100 bytes"):
        reader.feed(piece * 3)


def test_many_events_may_be_over_the_limit_together() -> None:
    reader = EventReader(limit=100)
    assert sum(len(reader.feed(b"data: 1234567890\n\n" * 10)) for _ in range(20)) == 200


def test_a_long_line_in_small_pieces_takes_linear_time() -> None:
    reader = EventReader()
    for _ in range(200_000):
        reader.feed(b"0123456789")
    assert reader.feed(b"\ndata: one\n\n") == [b"one"]
