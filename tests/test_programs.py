"""The programs that are started by name, and the Debian packages that bring them: deploy/packages names all of them."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.started_programs import UNKNOWN, Sources, Start

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "deploy" / "packages"

# Commands whose first word no source says, and what starts by them.
KNOWN = {
    Start("bench/daemon.py", "? self._agent.command(self._run)"): "the agent compared with, where the user has put it",
    Start("bench/generator.py", "? [*prefix, str(build()), *traffic.options()]"): "compiled by that very module",
    Start("bench/generator.py", "? command"): "cc, or what CC names",
    Start("tests/kernel/hosts.py", "? command"): "the words of `host.run(…)`, which are read where they are",
    Start("tests/machines/kernels.py", "? command"): "apt-get and apt-cache, with options in between",
    Start("tests/machines/machine.py", "? limited"): "qemu, under timeout",
    Start("tests/test_layout_constants.py", "? [directory / 'constants']"): "compiled by that very test",
    Start("tests/test_cli.py", "? [*command, 'run', '-x', 'ftp://h']"): "netwatch as it is installed",
    Start("tests/test_layout.py", "? [directory / 'layout']"): "compiled by that very test",
}


@attrs.frozen
class Package:
    """A line of the list."""

    needed_for: str
    name: str
    programs: tuple[str, ...]


def packages() -> Iterator[Package]:
    for line in LIST.read_text().splitlines():
        if line and not line.startswith("#"):
            needed_for, name, *programs = line.split()
            yield Package(needed_for, name, tuple(programs))


def programs_for(*words: str) -> set[str]:
    return {program for package in packages() if package.needed_for in words for program in package.programs}


def started_by_make() -> set[str]:
    """Return the first words of the Makefile's recipes."""
    variables = {"$(BIN)/python": "python3", "$(PYTHON)": "python3", "$(PIP)": "python3"}
    words: set[str] = set()
    for line in (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines():
        for command in line[1:].split("&&") if line.startswith("\t") else ():
            first = next(word for word in command.lstrip(" @-").split() if word != "exec" and "=" not in word)
            words.add(variables.get(first, first))
    # What the Makefile has installed itself, and scripts of the project.
    return {word for word in words if not word.startswith("$(BIN)/") and not (ROOT / word).is_file()}


def shell_words() -> set[str]:
    """Return all words of the project's shell scripts."""
    listed = [ROOT / ".ci" / "run", *(ROOT / "deploy").iterdir(), *(ROOT / "tests" / "machines").glob("*")]
    scripts = [path for path in listed if path.is_file() and re.match(rb"#!.*\b(ba)?sh\b", path.read_bytes())]
    return {word for script in scripts for word in re.findall(r"[\w-]+", script.read_text())}


@functools.cache
def starts() -> frozenset[Start]:
    """Return what the sources start."""
    return frozenset(Sources.read(ROOT, ("netwatch", "bench", "tests")).starts())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("subprocess.run(['one', '--two', 'three'])", {"one"}),
        ("subprocess.Popen([sys.executable, '-m', 'four'])", {"python3"}),
        ("async def f():\n    command = ('one', 'two')\n    await trio.run_process(command)", {"one"}),
        ("def f():\n    command = ('one',)\n    os.execvp('two', command)", {"two"}),
        ("def f(command):\n    subprocess.run(command)", {"? command"}),
        ("def f():\n    x = ['one']\ndef g():\n    x = ['two']\n    subprocess.run(x)", {"two"}),
        ("host.run('one', 'two', *three)", {"one"}),
        ("subprocess.run(['unshare', '--net', 'setpriv', '--reuid=1', 'one', 'two'])", {"unshare", "setpriv", "one"}),
        ("AS_USER = ('setpriv', '--reuid=1')\nnetwatch('run', prefix=AS_USER)", {"setpriv"}),
        ("def user():\n    return ('setpriv', '--reuid=1')\nnetwatch('run', prefix=user())", {"setpriv"}),
        ("def f(prefix):\n    subprocess.run([*prefix, 'one'])", {"one"}),
        ("class C:\n    def f(self):\n        self._c = ['one']\n        subprocess.run(self._c)", {"one"}),
        ("subprocess.run(['sh', '-c', f'echo {one} > two && cat three; exec four'])", {"sh", "cat"}),
        ("tempfile.mkdtemp(prefix='one'); trio.run(main); self.run()", set()),
    ],
)
def test_reading_of_sources(source: str, expected: set[str]) -> None:
    """The program is found however the command is written: in place, by name, by attribute, behind another program."""
    sources = Sources({"it.py": ast.parse(source)})
    assert {start.program for start in sources.starts()} == expected


def test_commands_that_cannot_be_read() -> None:
    """Each has an entry in this file that says what it is, and each entry is still needed."""
    assert {start for start in starts() if start.program.startswith(UNKNOWN)} == set(KNOWN)


def test_programs_are_listed() -> None:
    """The agent starts what `run` has; tests, benchmarks and the Makefile what is there for them."""
    started = {start for start in starts() if start not in KNOWN}
    of_the_agent = {start.program for start in started if start.place.startswith("netwatch/")}
    assert of_the_agent <= programs_for("base", "run")
    of_machines = {start.program for start in started if start.place.startswith("tests/machines/")}
    assert of_machines <= programs_for("base", "run", "machine", "guest")
    assert {start.program for start in started} - of_machines <= programs_for("base", "run", "test")
    assert started_by_make() <= programs_for("base", "run")


def test_nothing_else_is_listed() -> None:
    """What nothing starts any more goes from the list; what scripts start is at least named in one."""
    started = {start.program for start in starts()} | started_by_make() | {"cc"}
    words = {package.needed_for for package in packages()}
    assert programs_for(*words) - started - shell_words() == set()


def test_every_reader_reads_what_is_there() -> None:
    """Each word for which a package may be needed has some, and no package is listed twice."""
    names = [package.name for package in packages()]
    assert len(names) == len(set(names))
    assert {package.needed_for for package in packages()} >= {"base", "run", "test"}
    command = ["sh", "deploy/install-packages", "misspelt"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "nothing in deploy/packages is for 'misspelt'" in refused.stderr


@pytest.mark.parametrize("package", [package for package in packages() if package.programs], ids=lambda it: it.name)
def test_programs_come_from_their_package(package: Package) -> None:
    """Where the package is installed, its programs are files of it, or alternatives that lead to one."""
    listed = subprocess.run(["dpkg-query", "--listfiles", package.name], capture_output=True, text=True, timeout=60)
    if listed.returncode:
        pytest.skip(f"Debian's {package.name} is not installed")
    # /bin and /usr/bin are one directory; packages list the one or the other.
    files = {re.sub("^/usr", "", line) for line in listed.stdout.splitlines()}
    for program in package.programs:
        assert any(re.sub("^/usr", "", path) in files for path in links(program)), program


def links(program: str) -> Iterator[str]:
    """Yield where a program is found, and where that leads to, link by link."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    while found:
        yield found
        found = os.path.join(os.path.dirname(found), os.readlink(found)) if os.path.islink(found) else None
