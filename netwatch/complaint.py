"""What the operator is told of an error: one line for each cause on stderr, and an exit code.

Law: never a traceback, never a second line; what only a developer can use goes to a file that the line names.
Neighbours: `cli.py` reports what it caught; the codes of our own errors are in `errors.py`.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Iterator

from netwatch.errors import NetwatchError

EXIT_INTERNAL, EXIT_INTERRUPTED = 70, 130

# A line of this length is read; what is longer is a file that was pasted into a flag.
_MAX_LINE_CHARS = 1000


def report(error: BaseException) -> int:
    """Name each cause in a line and return the exit code of the first failure.

    An exception group, trio's wrapping of whatever ended a nursery, is its members, however deep.
    """
    causes = list(_causes(error))
    ours = [cause for cause in causes if isinstance(cause, NetwatchError)]
    foreign = [cause for cause in causes if not isinstance(cause, NetwatchError | KeyboardInterrupt)]
    if foreign:
        kind, said = type(foreign[0]).__name__, str(foreign[0])
        complain(f"{kind}: {said}; please report it with the traceback in {_write_traceback(error)}", "internal error")
        return EXIT_INTERNAL
    for cause in ours:
        complain(str(cause), "error" if cause.exit_code else "info")
    return next((cause.exit_code for cause in ours if cause.exit_code), 0) if ours else EXIT_INTERRUPTED


def _causes(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


def _write_traceback(error: BaseException) -> str:
    try:
        with tempfile.NamedTemporaryFile(prefix="netwatch-", suffix=".traceback", delete=False) as file:
            file.write("".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    except OSError as refused:
        return f"a file that could not be written ({refused.strerror})"
    return file.name


def complain(message: str, kind: str = "error") -> None:
    """Write one line to stderr."""
    # One line, whatever a file name, a flag or a library's message contains.
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in message)
    if len(line) > _MAX_LINE_CHARS:
        line = f"{line[: _MAX_LINE_CHARS // 2]} ... {line[-_MAX_LINE_CHARS // 2 :]}"
    print(f"netwatch: {kind}: {line}", file=sys.stderr)
