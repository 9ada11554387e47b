"""The programs as one text: our own includes inlined, with `#line` so that every error names its file.

Law: reads files, compiles nothing. Only `#include "x"` lines are inlined; `<x>` is the compiler's business.
Why: BCC rewrites its map dialect in the main file only; in an included header the same line becomes a call that the
verifier refuses ("unknown opcode 8d").
Neighbours: `compile.py` hands the text to BCC, `bpf/` is what is read.
"""

from __future__ import annotations

import re
from pathlib import Path

_OWN_INCLUDE = re.compile(r'^#include "([^"/]+)"$')


def source_directory() -> Path:
    """Return where the C sources are: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def shim_directory() -> Path:
    """Return the header tree that stands in for kernel headers."""
    return source_directory() / "shim"


def inline(main: Path) -> str:
    """Return the text of a C file with each of our own includes in its place, once."""
    return "\n".join(_lines(main, set())) + "\n"


def _lines(path: Path, done: set[str]) -> list[str]:
    done.add(path.name)
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = _OWN_INCLUDE.match(line)
        if not match:
            lines.append(line)
        elif match[1] not in done:
            lines += [*_lines(path.with_name(match[1]), done), f'#line {number + 1} "{path.name}"']
        else:
            lines.append("")
    return lines
