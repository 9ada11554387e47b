"""Logging: one line a record on stderr, our own at the level that was asked for.

Law: stdout is never written to; a library is heard from `warning` on.
Neighbours: `cli.py` configures once, every module logs to `netwatch.<module>`.
"""

from __future__ import annotations

import logging
import sys


class _LineFormatter(logging.Formatter):
    """`netwatch: warning: message`; with time and module where everything is wanted."""

    def __init__(self, is_detailed: bool) -> None:
        # journald, container runtimes and terminals have their own times.
        super().__init__("%(asctime)s %(name)s: %(message)s" if is_detailed else "%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Write the record in the form of the command's other lines."""
        return f"netwatch: {record.levelname.lower()}: {super().format(record)}"


def configure_logging(level: str) -> None:
    """Send records to stderr: ours from `level` on, those of libraries from `warning` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(is_detailed=level == "debug"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("netwatch").setLevel(level.upper())
