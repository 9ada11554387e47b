"""Build the traffic generator with the system's C compiler and run it.

Law: what `Sent` says was accepted by the kernel, each packet once, and is under way no more (it has passed the hooks at
the other end of a veth); a generator that ends in any other way raises.
Neighbours: `generator.c` generates, `tests/kernel/` and the benchmarks compare what netwatch says with `Sent`.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import attrs

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("generator.c", "settings.h", "frame.h"))
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")


class Mode(enum.Enum):
    """What is sent: unique flows or one flow in whole frames, or unique flows through an ordinary UDP socket."""

    FLOWS = "flows"
    ONE_FLOW = "one-flow"
    SOCKET = "socket"


class GeneratorFailed(Exception):
    """The generator could not be built, or ended in error."""


@attrs.frozen
class Traffic:
    """What to send: the options of `settings.h`, where None leaves its default.

    Flow n varies the source (in socket mode the destination): port 1024 + n % 64512, address + n / 64512. Whichever
    of `flows`, `packets` and `duration_s` is reached first ends the run; without a count and a duration it ends after
    10 s. `flows_per_second` 0 is full speed. In socket mode, send to addresses
    that do not answer (a static neighbour that has them not): each ICMP error that comes back is one of `errors`.
    """

    interface: str
    source: str
    destination: str
    mode: Mode = Mode.FLOWS
    destination_mac: str | None = None
    source_port: int | None = None
    destination_port: int | None = None
    flows: int | None = None
    packets_per_flow: int | None = None
    packets: int | None = None
    flow_offset: int | None = None
    flows_per_second: float | None = None
    duration_s: float | None = None
    payload: int | None = None
    cpu: int | None = None

    def options(self) -> list[str]:
        """Return the command line options."""
        options: list[str] = []
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if value is not None:
                name = field.name.removesuffix("_s").replace("_", "-")
                options += [f"--{name}", str(value.value if isinstance(value, Mode) else value)]
        return options


@attrs.frozen
class Sent:
    """What the generator says it sent. `bytes` are Ethernet frames without checksum.

    `errors` counts sends that were refused and repeated: 0 means that egress hooks have seen exactly `packets`.
    """

    flows: int
    packets: int
    bytes: int
    seconds: float
    errors: int

    @property
    def packets_per_second(self) -> float:
        """Achieved rate."""
        return self.packets / self.seconds


class Generator:
    """A running generator. Leaving the context ends it."""

    def __init__(self, traffic: Traffic, prefix: Sequence[str] = ()) -> None:
        """Start it; `prefix` is a command that runs a command, such as `nsenter --net=FILE`."""
        self._process = subprocess.Popen(
            [*prefix, str(build()), *traffic.options()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill what still runs."""
        self._process.kill()
        self._process.communicate()

    def is_running(self) -> bool:
        """Say whether it has not ended yet."""
        return self._process.poll() is None

    def wait(self, timeout_s: float | None = None) -> Sent:
        """Block until it ends by itself. Raises TimeoutExpired and leaves it running, or GeneratorFailed."""
        output, errors = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            raise GeneratorFailed(errors.strip() or f"exit code {self._process.returncode}")
        return Sent(**json.loads(output))

    def stop(self) -> Sent:
        """Ask it to end now and return what was sent until then."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s=60)


def generate(traffic: Traffic, prefix: Sequence[str] = ()) -> Sent:
    """Send the traffic and wait for its end."""
    with Generator(traffic, prefix) as generator:
        return generator.wait()


def build() -> Path:
    """Return the compiled generator; compile it where its sources have changed. Safe to call from many processes."""
    compiler = os.environ.get("CC", "cc")
    content = b"".join(source.read_bytes() for source in _SOURCES)
    digest = hashlib.sha256(content + repr((compiler, _FLAGS)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "netwatch"
    binary = cache / f"generator-{digest}"
    if binary.exists():
        return binary
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        fresh = Path(directory) / "generator"
        command = [compiler, *_FLAGS, "-o", str(fresh), str(_SOURCES[0])]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as exc:
            raise GeneratorFailed(f"{compiler}: no such C compiler; install gcc or set CC") from exc
        except subprocess.CalledProcessError as exc:
            raise GeneratorFailed(f"{' '.join(command)}\n{exc.stderr}") from exc
        # A rename within one directory is atomic: nobody ever runs half a file.
        fresh.rename(binary)
    return binary
