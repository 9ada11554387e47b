"""Kernels to try, as Debian packages them.

Invariant: nothing is installed on this machine. Packages are downloaded into a directory of their own by an apt with
its own sources list and state; only their files are unpacked.
See also: `machine.py` boots what is unpacked here. The mirror is the one that this machine's apt uses.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import attrs

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ARCHITECTURE = "amd64"


@attrs.frozen
class Suite:
    """A Debian release whose newest cloud kernel is wanted; `version` is what its name begins with."""

    name: str
    version: str


# Oldest first. The cloud flavour is small, and has as modules what the tests need: netem, conntrack, tunnels, bonds.
SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        "6.1": Suite("bookworm", "6.1"),
        "6.12": Suite("bookworm-backports", "6.12"),
        "newest": Suite("trixie-backports", ""),
    }
)


@attrs.frozen
class Kernel:
    """An unpacked kernel: its release, its image, and the directory whose `lib/modules` holds its modules."""

    release: str
    image: Path
    directory: Path

    @property
    def modules(self) -> Path:
        """Where its modules are: /lib and /usr/lib are one since Debian 13, and its packages know it."""
        found = (*self.directory.glob("usr/lib/modules/*"), *self.directory.glob("lib/modules/*"))
        return found[0]


def fetch(suite: Suite, cache: Path) -> Kernel:
    """Download and unpack the newest cloud kernel of a suite. Raises CalledProcessError where a package is missing."""
    apt = _Apt(suite.name, cache / suite.name)
    apt.update()
    packages = apt.kernel_packages(f"linux-image-cloud-{_ARCHITECTURE}")
    release = next(
        name.removeprefix("linux-image-")
        for name in packages
        if name.startswith(f"linux-image-{suite.version}") and "-cloud-" in name and name[12:13].isdigit()
    )
    directory = cache / release
    if not directory.is_dir():
        unpacked = directory.with_name(f"{release}.part")
        for package in packages:
            apt.unpack(package, unpacked)
        unpacked.rename(directory)
    image, *_ = *directory.glob("boot/vmlinuz-*"), *directory.glob("usr/lib/modules/*/vmlinuz")
    return Kernel(release, image, directory)


@attrs.frozen
class _Apt:
    """An apt that knows one suite of the machine's own mirror, and nothing of what is installed."""

    suite: str
    directory: Path

    def update(self) -> None:
        """Fetch the list of packages."""
        for name in ("lists/partial", "cache/archives/partial", "state"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "status").touch()
        source = f"deb [signed-by={_KEYRING} arch={_ARCHITECTURE}] {_mirror()} {self.suite} main\n"
        (self.directory / "sources.list").write_text(source)
        self._run("apt-get", "-qq", "update")

    def kernel_packages(self, wanted: str) -> list[str]:
        """Return the packages that have the files of a kernel, which some releases part into three."""
        hide = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
        output = self._run("apt-cache", "depends", "--recurse", *hide, wanted)
        return sorted({line for line in output.splitlines() if line.startswith("linux-")})

    def unpack(self, package: str, directory: Path) -> None:
        """Download a package and unpack its files."""
        self._run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package)
        (archive,) = self.directory.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, directory], check=True)
        archive.unlink()

    def _run(self, program: str, *arguments: str) -> str:
        options = {
            "Dir::Etc::sourcelist": self.directory / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": self.directory / "state",
            "Dir::State::lists": self.directory / "lists",
            "Dir::State::status": self.directory / "status",
            "Dir::Cache": self.directory / "cache",
        }
        command = [
            program,
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
            *arguments,
        ]
        return _output(command, self.directory)


def _mirror() -> str:
    """Return the address of Debian's archive, as this machine's apt has it."""
    lines = _output(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Created-By: Packages"])
    return next(line for line in lines.splitlines() if "security" not in line)


def _output(command: Sequence[str], directory: Path | None = None) -> str:
    return subprocess.run(command, cwd=directory, check=True, stdout=subprocess.PIPE, text=True).stdout
