"""Server-sent events out of a stream of bytes that may be cut anywhere."""

from __future__ import annotations

from routellm.errors import UpstreamReplyError

EVENT_LIMIT = 16 << 20
"""Bytes. No event of any API comes near, and no upstream may fill this server's memory with a larger one."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventReader:
    """Takes a stream chunk by chunk and gives out the `data` of each event as soon as it is complete.

    Lines end in LF, CR or CRLF; an event's data lines are joined by LF; comments and all other fields are passed by, as are
    events without data. An event that no blank line has ended is not complete, and never given out.

    Args:
        limit: the largest event, in bytes, its other fields and its comments included.
    """

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._line: list[bytes] = []  # the pieces of a line that has not ended
        self._data: list[bytes] = []  # the data lines of an event that has not ended
        self._size = 0  # of all that came of that event, in bytes
        self._after_cr = False  # the last chunk ended in CR; an LF that comes next belongs to it
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that `chunk` completes, in order.

        Raises:
            UpstreamReplyError: an event is over the limit. Nothing can be read after that.
        """
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        lines = chunk.splitlines()
        rest = lines.pop() if lines and not chunk.endswith((b"\n", b"\r")) else b""
        if chunk.endswith(b"\r"):
            self._after_cr = True
        events: list[bytes] = []
        for line in lines:
            self._count(line)
            if self._line:
                line = b"".join((*self._line, line))
                self._line.clear()
            self._end_line(line, events)
        if rest:
            self._count(rest)
            self._line.append(rest)
        return events

    def _end_line(self, line: bytes, events: list[bytes]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            if any(self._data):
                events.append(b"\n".join(self._data))
            self._data.clear()
            self._size = 0
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._data.append(b"")

    def _count(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            raise UpstreamReplyError(f"The model sent an event of over {self._limit:,} bytes in its stream.")
