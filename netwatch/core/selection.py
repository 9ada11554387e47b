"""Which interfaces are watched: names and regular expressions, taken in and left out.

Law: a decision depends on the patterns and the link alone. Without patterns all but loopback is selected; a pattern
that matches selects whatever it matches, loopback too; leaving out wins.
Neighbours: `interface_pattern.py` has checked the patterns' syntax; `watch.py` asks for each link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from netwatch.core.link import Link
from netwatch.errors import InterfaceMissing


def _compiled(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(text[1:-1] if _is_regex(text) else re.escape(text)) for text in patterns)


def _is_regex(text: str) -> bool:
    # No interface name contains a slash: dev_valid_name() in net/core/dev.c refuses it.
    return text.startswith("/")


def _matches_any(patterns: tuple[re.Pattern[str], ...], name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)


@attrs.frozen
class Selection:
    """The operator's choice. Patterns are NAME, or /REGEX/ that matches a whole name."""

    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    _included: tuple[re.Pattern[str], ...] = attrs.field(init=False, repr=False)
    _excluded: tuple[re.Pattern[str], ...] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Compile once: each link event asks."""
        object.__setattr__(self, "_included", _compiled(self.included))
        object.__setattr__(self, "_excluded", _compiled(self.excluded))

    def selects(self, link: Link) -> bool:
        """Say whether a link is to be watched."""
        if _matches_any(self._excluded, link.name):
            return False
        return _matches_any(self._included, link.name) if self._included else not link.is_loopback

    def names(self, link: Link) -> bool:
        """Say whether a link was asked for by its very name, so that failing to attach to it is no small matter."""
        return link.name in self.included and self.selects(link)

    def check_present(self, links: Iterable[Link]) -> tuple[str, ...]:
        """Check the patterns against the interfaces at the start.

        Returns the regular expressions that match nothing yet: worth a warning, because an interface may come.
        Raises InterfaceMissing where a NAME does not exist, or nothing at all is selected.
        """
        present = tuple(links)
        names = tuple(link.name for link in present)
        unmatched = tuple(
            text
            for text, pattern in zip(self.included, self._included, strict=True)
            if not any(map(pattern.fullmatch, names))
        )
        for text in unmatched:
            if not _is_regex(text):
                raise InterfaceMissing(text, names)
        if not any(map(self.selects, present)):
            raise InterfaceMissing(self.describe(), names)
        return unmatched

    def describe(self) -> str:
        """Return the selection in words."""
        wanted = ", ".join(self.included) or "all but loopback"
        return f"{wanted}, without {', '.join(self.excluded)}" if self.excluded else wanted
