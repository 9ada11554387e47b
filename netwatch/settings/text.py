"""Settings as text: TOML that can be read back, and the tables of the README.

Law: what is printed here is derived from `config.py` and `errors.py`; nothing is described twice.
Neighbours: `cli.py` prints it; `tests/test_config.py` compares the README with it. `python -m netwatch.settings.text`
prints the tables to paste.
"""

from __future__ import annotations

from pathlib import Path

from netwatch.config import SETTINGS
from netwatch.errors import DeliveryFailed, NetwatchError
from netwatch.settings.setting import Setting
from netwatch.settings.sources import Loaded

OTHER_EXIT_CODES = {
    0: "Done; everything that was seen has been exported, or is in the ledger as lost.",
    1: "`netwatch check`: this machine cannot run netwatch.",
    70: "Internal error: report it, with the file that the message names.",
    74: "Standard output cannot be written: free space on the disk, or print elsewhere.",
    130: "Ctrl-C before anything was captured.",
    141: "Whoever read what `check` or `--print-config` prints has closed the pipe.",
}


def toml_value(value: object) -> str:
    """Write a value as TOML 1.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(one) for one in value)}]"
    if isinstance(value, str | Path):
        return f'"{"".join(_escaped(char) for char in str(value))}"'
    raise TypeError(f"no setting is a {type(value).__name__}")


def as_toml(loaded: Loaded) -> str:
    """Write all settings as a TOML file, with a comment where a value is no default; `-c` takes it back."""
    lines = []
    for setting in SETTINGS:
        value, source = getattr(loaded.config, setting.name), loaded.sources.get(setting.name)
        line = f"# {setting.name}: not set" if value is None else f"{setting.name} = {toml_value(value)}"
        lines.append(f"{line}  # {''.join(_escaped(char) for char in source)}" if source else line)
    return "\n".join(lines) + "\n"


def settings_table() -> str:
    """Write the README's table of all settings."""
    head = ("Setting", "TOML key", "Environment", "Flag", "Default, and why", "Limits, and what happens there")
    return _table(head, [_settings_row(setting) for setting in SETTINGS])


def exit_codes() -> list[tuple[int, str]]:
    """Return every exit code with its meaning, which is the first sentence of the error's docstring.

    DeliveryFailed is left out: it is answered by another attempt and never ends the process.
    """
    codes = dict(OTHER_EXIT_CODES)
    for error in NetwatchError.__subclasses__():
        if error.exit_code not in codes and error is not DeliveryFailed:
            codes[error.exit_code] = (error.__doc__ or "").partition("\n")[0].partition(". ")[0].rstrip(".") + "."
    return sorted(codes.items())


def exit_code_table() -> str:
    """Write the README's table of exit codes."""
    return _table(("Exit code", "Meaning, and what to do"), [(str(code), text) for code, text in exit_codes()])


def _settings_row(setting: Setting) -> tuple[str, ...]:
    default = "not set" if setting.default is None else f"`{toml_value(setting.default)}`"
    flags = ", ".join(f"`{flag}`" for flag in setting.flags) or "none"
    return (
        setting.summary,
        f"`{setting.name}`",
        f"`{setting.variable}`",
        flags,
        f"{default}: {setting.why}",
        setting.limits or "none",
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


if __name__ == "__main__":
    print(f"<!-- settings -->\n{settings_table()}\n<!-- /settings -->\n")
    print(f"<!-- exit-codes -->\n{exit_code_table()}\n<!-- /exit-codes -->")
