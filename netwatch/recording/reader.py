"""Read a recording: first what is in it, then its frames.

Law: frames end where the file is not as it was written, and what stands behind is never looked at. Memory holds one
frame, whatever a file says of itself.
Neighbours: `files.py` wrote them, `frames.py` decodes, `replay.py` decides what to do with them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import attrs
import msgpack

from netwatch.errors import RecordingUnusable
from netwatch.recording.files import rotated
from netwatch.recording.frames import (
    Closed,
    Containers,
    Drained,
    End,
    ForeignFormatError,
    Frame,
    Header,
    Interfaces,
    decode_frame,
    decode_header,
    open_envelope,
)

# A chunk of 8,192 rows has 1.2 MB, the names of 65,536 interfaces have 2 MB.
_MAX_FRAME_BYTES = 16 << 20


@attrs.frozen(kw_only=True)
class Recording:
    """A recording that can be replayed. `header` is that of its first file."""

    paths: tuple[Path, ...]
    header: Header
    drains: int  # whole ones
    has_end: bool  # the last of them was the last of the run
    first_ns: int  # when its first epoch was closed, by the monotonic clock, and when its last
    last_ns: int
    damaged: str | None  # where it stops being readable

    @property
    def is_continued(self) -> bool:
        """Whether its beginning is gone."""
        return self.header.number > 0

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of the whole drains, and those between them.

        Where the beginning is gone, what is left of its first drain is passed over: all but the names in it.
        """
        is_passed_over = self.is_continued
        drains = self.drains
        for frame in _frames_of(self.paths, _Damage()):
            if is_passed_over and not isinstance(frame, Interfaces | Containers):
                is_passed_over = not isinstance(frame, Drained)
                continue
            yield frame
            drains -= isinstance(frame, Drained)
            if not drains:
                return


@attrs.define
class _Damage:
    """Where reading came to an end before the file did."""

    where: str | None = None


def open_recording(path: Path) -> Recording:
    """Look through a recording. Raises RecordingUnusable, in one line, where there is nothing to replay."""
    header, paths = _files_of(path)
    damage = _Damage()
    closed, drains, has_end = [], 0, False
    is_passed_over = header.number > 0
    for frame in _frames_of(paths, damage):
        if isinstance(frame, Closed) and not is_passed_over:
            closed.append(frame.closed_ns)
        elif isinstance(frame, Drained):
            drains += not is_passed_over
            is_passed_over = False
        has_end = isinstance(frame, End)
    if not drains:
        where = f": damaged or cut off at {damage.where}" if damage.where else ""
        raise RecordingUnusable(str(path), f"holds no whole drain{where}")
    return Recording(
        paths=paths,
        header=header,
        drains=drains,
        has_end=has_end,
        first_ns=closed[0],
        last_ns=closed[drains - 1],
        damaged=damage.where,
    )


def _files_of(path: Path) -> tuple[Header, tuple[Path, ...]]:
    """Return the files, and the header of the first. Without the one before, the recording begins in the middle."""
    header, before = _header(path), rotated(path)
    if header.number and before.exists():
        try:
            older = _header(before)
        except RecordingUnusable:
            return header, (path,)  # that file is something else
        if (older.run, older.number) == (header.run, header.number - 1):
            return older, (before, path)
    return header, (path,)


def _header(path: Path) -> Header:
    """Return a file's header. Raises RecordingUnusable."""
    try:
        with path.open("rb") as file:
            first = next(_envelopes(file), None)
            is_empty = not file.seek(0, os.SEEK_END)
    except OSError as error:
        raise RecordingUnusable(str(path), f"cannot be read: {error.strerror}") from error
    if first is None:
        reason = "is empty" if is_empty else "is no recording of netwatch, or cut off in its header"
        raise RecordingUnusable(str(path), reason)
    try:
        return decode_header(first)
    except ForeignFormatError as error:
        raise RecordingUnusable(str(path), str(error)) from error


def _frames_of(paths: tuple[Path, ...], damage: _Damage) -> Iterator[Frame]:
    for path in paths:
        with path.open("rb") as file:
            place = 0
            envelopes = _envelopes(file)
            header = next(envelopes, None)
            known = decode_header(header).restated if header and path is not paths[0] else 0
            for packed in envelopes:
                try:
                    frame = decode_frame(packed)
                except ValueError:
                    break
                place += 1
                if place > known:
                    yield frame
            else:
                if _is_read(file):
                    continue
            damage.where = f"frame {place + 1} of {path}"
            return


def _envelopes(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is in the envelopes of a file, until one is not as it was written; the file is then beyond it."""
    unpacker = msgpack.Unpacker(
        file, max_buffer_size=_MAX_FRAME_BYTES, max_array_len=2, max_map_len=0, max_ext_len=0, max_str_len=0
    )
    good = 0
    try:
        for envelope in unpacker:
            packed = open_envelope(envelope)
            good = unpacker.tell()
            yield packed
    except (ValueError, msgpack.UnpackException):
        pass
    file.seek(good)


def _is_read(file: IO[bytes]) -> bool:
    """Say whether nothing stands behind the place where the envelopes ended."""
    return not file.read(1)
