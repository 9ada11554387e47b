"""What a setting's value may be: seconds, counts, choices, lists, paths, addresses.

Law: `parse` takes a value as TOML gives it and returns the one form that the program uses; what it returned, it takes
again unchanged. `from_text` makes such a value of a variable's or flag's text. Neither looks at anything but its
argument. What they refuse is a ValueError whose text says what would have been right.
Neighbours: `config.py` gives every setting a kind; `interface_pattern.py` and `exporter_url.py` are kinds too.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import attrs

from netwatch.settings.addresses import parse_listen

T = TypeVar("T")

_UNIT_DIVISORS = {"ms": 1000.0, "s": 1.0, "": 1.0}
_UNIT_FACTORS = {"m": 60.0, "h": 3600.0}
_INTEGER = re.compile(r"-?[0-9]+(?:_[0-9]+)*")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|)")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Kind(Generic[T]):
    """A kind of value."""

    def parse(self, value: object) -> T:
        """Return the value in its one form. Raises ValueError, in the operator's words."""
        raise NotImplementedError

    def from_text(self, text: str) -> object:
        """Return what `parse` takes."""
        return text


def nearest(word: str, words: Sequence[str]) -> str:
    """Return a hint that names the word probably meant, or nothing."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


@attrs.frozen
class Seconds(Kind[float]):
    """A duration: a number of seconds, or text with a unit; `zero_means` allows 0 below the minimum."""

    minimum: float
    maximum: float
    zero_means: str | None = None

    def parse(self, value: object) -> float:
        """Return seconds."""
        seconds = self._seconds(value)
        if seconds == 0 and self.zero_means:
            return 0.0
        if seconds is None or not self.minimum <= seconds <= self.maximum:
            zero = f", or 0: {self.zero_means}" if self.zero_means else ""
            raise ValueError(
                f"expected {self.minimum:g} to {self.maximum:g} seconds{zero}; as 5, '500ms', '5s' or '2m'"
            )
        return seconds

    @staticmethod
    def _seconds(value: object) -> float | None:
        if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
            number, unit = float(match[1]), match[2]
            # Dividing keeps 700ms at 0.7; multiplying by 0.001 would not.
            return number * _UNIT_FACTORS[unit] if unit in _UNIT_FACTORS else number / _UNIT_DIVISORS[unit]
        if isinstance(value, int | float) and not isinstance(value, bool):
            # An integer too large for a float is too large for us.
            return float(value) if abs(value) <= 1e18 else None
        return None


@attrs.frozen
class Count(Kind[int]):
    """A whole number between two bounds."""

    minimum: int
    maximum: int

    def parse(self, value: object) -> int:
        """Return the number."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.minimum <= value <= self.maximum:
            raise ValueError(f"expected a whole number from {self.minimum} to {self.maximum}")
        return value

    def from_text(self, text: str) -> object:
        """Return the number, or the text where it is none."""
        digits = text.strip()
        # Forty are more than any limit here has; Python itself gives up at 4,300.
        return int(digits) if len(digits) <= 40 and _INTEGER.fullmatch(digits) else text


@attrs.frozen
class PowerOfTwo(Count):
    """A power of two between two bounds."""

    def parse(self, value: object) -> int:
        """Return the number."""
        number = super().parse(value)
        if number & (number - 1):
            below = 1 << number.bit_length() - 1
            raise ValueError(f"expected a power of two, such as {below} or {2 * below}")
        return number


@attrs.frozen
class Port(Kind[int]):
    """A port number; in a list also as text."""

    def parse(self, value: object) -> int:
        """Return the number."""
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 16:
            raise ValueError("expected a port from 1 to 65535")
        return value


@attrs.frozen
class Switch(Kind[bool]):
    """True or false."""

    def parse(self, value: object) -> bool:
        """Return it."""
        if not isinstance(value, bool):
            raise ValueError("expected true or false")  # noqa: TRY004
        return value

    def from_text(self, text: str) -> object:
        """Return true or false, or the text where it is neither."""
        word = text.strip().lower()
        return word in _TRUE if word in _TRUE + _FALSE else text


@attrs.frozen
class Choice(Kind[T]):
    """One word of a few; capitals do not matter."""

    words: tuple[T, ...]

    def parse(self, value: object) -> T:
        """Return the word."""
        known = [str(word) for word in self.words]
        if isinstance(value, str) and (word := value.strip().lower()) in known:
            return self.words[known.index(word)]
        hint = nearest(value.lower(), known) if isinstance(value, str) else ""
        raise ValueError(f"expected {' or '.join(known)}{hint}")


@attrs.frozen
class Optional(Kind[T | None]):
    """Another kind, or nothing set."""

    kind: Kind[T]

    def parse(self, value: object) -> T | None:
        """Return the other kind's value, or None."""
        return None if value is None else self.kind.parse(value)

    def from_text(self, text: str) -> object:
        """Return what the other kind makes of it."""
        return self.kind.from_text(text)


@attrs.frozen
class Several(Kind[tuple[T, ...]]):
    """A list without repetition. Text is split at white space, which none of the listed kinds can contain."""

    kind: Kind[T]
    at_most: int

    def parse(self, value: object) -> tuple[T, ...]:
        """Return all values, in order."""
        if not isinstance(value, list | tuple):
            raise ValueError("expected a list of texts")  # noqa: TRY004 - one exception for all that is refused
        if len(value) > self.at_most:
            raise ValueError(f"expected at most {self.at_most} values, got {len(value)}")
        values = tuple(self.kind.parse(one) for one in value)
        if len(set(values)) < len(values):
            twice = next(one for one in values if values.count(one) > 1)
            raise ValueError(f"{twice} is given twice")
        return values

    def from_text(self, text: str) -> object:
        """Return the words."""
        return text.split()


@attrs.frozen
class Switches(Several[T]):
    """A list of what is on; `none` alone, where an empty list cannot be written."""

    def parse(self, value: object) -> tuple[T, ...]:
        """Return what is on, in order."""
        return super().parse([] if value in (["none"], ("none",)) else value)


@attrs.frozen
class FilePath(Kind[Path]):
    """A path; whether it exists is not asked here."""

    def parse(self, value: object) -> Path:
        """Return the path."""
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("expected a path")
        return Path(value)


@attrs.frozen
class ListenAddress(Kind[str]):
    """An address to listen on: HOST:PORT; :PORT and PORT mean loopback."""

    def parse(self, value: object) -> str:
        """Return HOST:PORT."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("expected HOST:PORT, or a port on loopback")  # noqa: TRY004
        return str(parse_listen(value))


@attrs.frozen
class IpAddress(Kind[str]):
    """An IPv4 or IPv6 address."""

    def parse(self, value: object) -> str:
        """Return the address in its shortest form."""
        try:
            return str(ipaddress.ip_address(str(value).strip()))
        except ValueError:
            raise ValueError("expected an IPv4 or IPv6 address") from None
