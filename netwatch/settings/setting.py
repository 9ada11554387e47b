"""What is known of one setting, kept on the attrs field that holds its value.

Law: one description feeds the validator, the flags, the variables, the TOML keys and the README's table.
Neighbours: `config.py` declares settings with it; `sources.py`, `text.py` and `cli.py` read them.
"""

from __future__ import annotations

from typing import Any, TypeVar

import attrs

from netwatch.errors import ConfigError
from netwatch.settings.kinds import Kind, Several

T = TypeVar("T")

VARIABLE_PREFIX = "NETWATCH_"


@attrs.frozen
class Setting:
    """The description of one setting; `flags` are the command line's names for it."""

    kind: Kind[Any]
    summary: str
    why: str
    limits: str
    flags: tuple[str, ...]
    metavar: str | None
    name: str = ""
    default: object = None

    @property
    def variable(self) -> str:
        """The environment variable."""
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def repeats(self) -> bool:
        """Whether its flag may be given several times."""
        return isinstance(self.kind, Several)


def setting(kind: Kind[T], default: T, summary: str, *, why: str, limits: str = "", flag: str = "") -> T:
    """Declare a setting as an attrs field. `flag` is written `-i --interface METAVAR`."""
    words = flag.split()
    flags = tuple(word for word in words if word.startswith("-"))
    metavar = words[-1] if words else None
    described = Setting(kind, summary, why, limits, flags, metavar)
    # A field to attrs, a value of its type to the type checker: as attrs.field() itself is declared.
    field: T = attrs.field(default=default, validator=_is_canonical, metadata={"setting": described})
    return field


def settings_of(config_class: type[attrs.AttrsInstance]) -> tuple[Setting, ...]:
    """Return the settings of a class, in order of declaration."""
    return tuple(
        attrs.evolve(field.metadata["setting"], name=field.name, default=field.default)
        for field in attrs.fields(config_class)
    )


def _is_canonical(_: object, field: attrs.Attribute[Any], value: object) -> None:
    kind: Kind[object] = field.metadata["setting"].kind
    try:
        parsed = kind.parse(value)
    except ValueError as error:
        raise ConfigError(field.name, value, str(error)) from error
    if parsed != value:
        raise ConfigError(field.name, value, f"expected {parsed!r}")
