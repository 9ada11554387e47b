"""Where settings come from: a TOML file, the environment, flags; the later one wins.

Law: every value is checked in every source, also one that a later source overrides; an error names the setting, the
value, what was expected, and the source. Lists replace each other, they do not add up.
Neighbours: `cli.py` calls `load`; `config.py` checks what the settings mean together.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from netwatch.config import SETTINGS, Config
from netwatch.errors import ConfigError
from netwatch.settings.kinds import nearest
from netwatch.settings.setting import VARIABLE_PREFIX, Setting

# A complete file is 2 kB. The bound is for -c /dev/zero.
MAX_FILE_BYTES = 1 << 20

# Kubernetes sets NETWATCH_SERVICE_HOST, NETWATCH_PORT_4317_TCP_ADDR and the like in each pod of a namespace that has a
# service whose name begins with netwatch (kubernetes.io, "Accessing the Service", environment variables).
_OF_KUBERNETES = re.compile(r"\w*?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


@attrs.frozen
class Given:
    """A value for a setting, as the source wrote it, and where it was written."""

    name: str
    value: object
    source: str


@attrs.frozen
class Loaded:
    """The settings, and where each that is no default was set, by name."""

    config: Config
    sources: Mapping[str, str]


def load(arguments: argparse.Namespace, environ: Mapping[str, str], file: Path | None) -> Loaded:
    """Merge all sources over the defaults. Raises ConfigError."""
    by_name = {setting.name: setting for setting in SETTINGS}
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for given in (*_from_file(file), *_from_environ(environ), *_from_flags(arguments)):
        setting = by_name.get(given.name)
        if setting is None:
            raise ConfigError(given.name, given.value, f"no such setting{_meant(given.name, [*by_name])}", given.source)
        try:
            values[given.name] = setting.kind.parse(given.value)
        except ValueError as error:
            raise ConfigError(given.name, given.value, str(error), given.source) from error
        sources[given.name] = given.source
    try:
        return Loaded(Config(**values), sources)  # type: ignore[arg-type]  # parsed by the field's own kind
    except ConfigError as error:
        raise ConfigError(error.setting, error.value, error.hint, sources.get(error.setting)) from error


def _from_file(path: Path | None) -> Iterator[Given]:
    if path is None:
        return
    shown = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError("config file", shown, f"cannot be read: {reason}", "-c") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError("config file", shown, f"is larger than {MAX_FILE_BYTES} bytes", "-c")
    try:
        table = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError("config file", shown, f"line {line}: not UTF-8", "-c") from error
    except (ValueError, RecursionError) as error:  # also integers of more digits than Python reads
        raise ConfigError("config file", shown, f"is no TOML: {error}", "-c") from error
    for name, value in table.items():
        yield Given(name, value, shown)


def _from_environ(environ: Mapping[str, str]) -> Iterator[Given]:
    by_variable = {setting.variable: setting for setting in SETTINGS}
    for variable in sorted(environ):
        if not variable.startswith(VARIABLE_PREFIX):
            continue
        text, setting = environ[variable], by_variable.get(variable)
        if setting:
            # Compose files and manifests leave a variable empty to leave it out.
            if text.strip():
                yield Given(setting.name, _from_text(setting, text, variable), variable)
        elif not _OF_KUBERNETES.fullmatch(variable, len(VARIABLE_PREFIX)):
            # By name: with the prefix every variable would look near.
            meant = _meant(variable.removeprefix(VARIABLE_PREFIX).lower(), [each.name for each in SETTINGS])
            raise ConfigError(variable, text, f"no such setting{meant}", "environment")


def _from_flags(arguments: argparse.Namespace) -> Iterator[Given]:
    for setting in SETTINGS:
        given: str | list[str] | None = getattr(arguments, setting.name, None)
        if given is None:
            continue
        flag = setting.flags[-1]
        if isinstance(given, list):
            yield Given(setting.name, [_utf8(setting, text, flag) for text in given], flag)
        else:
            yield Given(setting.name, _from_text(setting, given, flag), flag)


def _from_text(setting: Setting, text: str, source: str) -> object:
    return setting.kind.from_text(_utf8(setting, text, source))


def _utf8(setting: Setting, text: str, source: str) -> str:
    # Python keeps bytes that are not UTF-8 as lone surrogates, which no TOML file and no terminal can show.
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ConfigError(setting.name, text, "expected UTF-8", source)
    return text


def _meant(word: str, words: list[str]) -> str:
    return nearest(word, words) or "; `netwatch run --print-config` shows all"
