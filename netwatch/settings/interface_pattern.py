"""How interfaces are named in the settings: NAME, or /REGEX/.

Law: a regular expression has to match the whole name, so that /eth./ does not mean veth12.
Neighbours: `config.py` (`interfaces`, `exclude_interfaces`), `watch.py` selects by it.
"""

from __future__ import annotations

import re
import warnings

import attrs

from netwatch.settings.kinds import Kind

# IFNAMSIZ in include/uapi/linux/if.h is 16, with the final zero.
_MAX_NAME_BYTES = 15


@attrs.frozen
class InterfacePattern(Kind[str]):
    """The name of an interface, or /REGEX/."""

    def parse(self, value: object) -> str:
        """Return the pattern as it was written."""
        if not isinstance(value, str):
            raise ValueError("expected a name such as eth0, or a regular expression such as /veth.*/")  # noqa: TRY004
        if value.startswith("/"):
            _check_regex(value)
        else:
            _check_name(value)
        return value


def _check_regex(value: str) -> None:
    if len(value) < 3 or not value.endswith("/"):
        raise ValueError(f"{value!r}: a regular expression stands between two slashes, such as /veth.*/")
    try:
        with warnings.catch_warnings():
            # A pattern whose meaning may change with the next Python is a mistake too; and no warning goes to stderr.
            warnings.simplefilter("error")
            re.compile(value[1:-1])
    except re.error as error:
        where = "" if error.pos is None else f" at character {error.pos + 1} of the expression"
        raise ValueError(f"{value!r} is no regular expression: {error.msg}{where}") from error
    except (Warning, OverflowError, RecursionError) as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error


def _check_name(name: str) -> None:
    # What dev_valid_name() in net/core/dev.c refuses, and the comma that somebody meant as a separator.
    if "," in name:
        raise ValueError(f"{name!r}: give several names one by one, not separated by commas")
    if name in ("", ".", "..") or not name.isprintable() or any(char in " /:" for char in name):
        raise ValueError(f"{name!r} is no interface name; a regular expression stands between two slashes")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ValueError(f"{name!r} is longer than the {_MAX_NAME_BYTES} bytes of an interface name")
