"""The files of a recording: `FILE`, and `FILE.1` with what stood there before.

Law: bounded. A file that would outgrow half of the limit becomes `FILE.1`, and replaces what was that before; so the
last half of the limit is always kept, and at most all of it. Frames are written whole and in order, and nothing after
one that could not be. What `write(2)` took survives the end of the process, however it comes; nothing is synced, so the
last seconds before a power cut may be missing.
Neighbours: `writer.py` calls from a thread, `reader.py` reads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import attrs

from netwatch.errors import ConfigError
from netwatch.recording.frames import Containers, Frame, Header, Interfaces, encode_frame, encode_header


def rotated(path: Path) -> Path:
    """Return where the older frames are."""
    return path.with_name(f"{path.name}.1")


@attrs.define(eq=False)
class RecordingFiles:
    """Open for writing. Owns the descriptor; not to be used by two threads at once."""

    path: Path
    max_bytes: int
    header: Header
    _fd: int = attrs.field(default=-1, init=False)
    _size_bytes: int = attrs.field(default=0, init=False)
    # What is told only when it changes: each file begins with it.
    _current: dict[type[Frame], Frame] = attrs.field(factory=dict, init=False)

    def open(self) -> None:
        """Make the file anew. Raises ConfigError where that is not possible."""
        try:
            if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
                raise ConfigError("record", str(self.path), "is no regular file; name another")
            self._begin_file()
        except OSError as error:
            raise ConfigError(
                "record", str(self.path), f"cannot be written: {error.strerror}; name another file"
            ) from error

    def write(self, frames: Iterable[Frame]) -> None:
        """Write frames. Blocks; raises OSError, and then some of them were written."""
        for frame in frames:
            encoded = encode_frame(frame)
            if self._size_bytes + len(encoded) > self.max_bytes // 2:
                self._rotate()
            if isinstance(frame, Interfaces | Containers):
                self._current[type(frame)] = frame
            self._write(encoded)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin_file(self) -> None:
        # Who asked for which name, and who talked to whom: nobody else's business.
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_APPEND, 0o600)
        self._size_bytes = 0
        self._write(encode_header(self.header))
        for frame in self._current.values():
            self._write(encode_frame(frame))

    def _rotate(self) -> None:
        self.close()
        self.path.replace(rotated(self.path))
        self.header = attrs.evolve(self.header, number=self.header.number + 1, restated=len(self._current))
        self._begin_file()

    def _write(self, octets: bytes) -> None:
        self._size_bytes += len(octets)
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
