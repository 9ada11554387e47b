"""What can go wrong, one class for each next action of the operator.

Law: a message names the thing, the value and the remedy. `cli.py` prints it as one line and exits with `exit_code`;
the codes are documented in the README and never change their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class NetwatchError(Exception):
    """Something the operator can act on. `exit_code` is what the process ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(NetwatchError):
    """A setting cannot be used: correct it. `source` is the flag, variable or file that set it."""

    exit_code = 2

    def __init__(self, setting: str, value: object, hint: str, source: str | None = None) -> None:
        self.setting, self.value, self.hint, self.source = setting, value, hint, source
        where = f"{source}: " if source else ""
        super().__init__(f"{where}{setting} = {value!r}: {hint}")


class PermissionMissing(NetwatchError):
    """The process may not use BPF: run as root or grant capabilities."""

    exit_code = 3

    def __init__(self, missing: str, hint: str) -> None:
        self.missing, self.hint = missing, hint
        super().__init__(f"missing {missing}: {hint}")


class KernelUnsupported(NetwatchError):
    """The kernel lacks something netwatch needs: use another kernel or another setting."""

    exit_code = 4

    def __init__(self, feature: str, found: str, hint: str) -> None:
        self.feature, self.found, self.hint = feature, found, hint
        super().__init__(f"{feature}: {found}; {hint}")


class InterfaceMissing(NetwatchError):
    """No interface matches: name another or create it."""

    exit_code = 5

    def __init__(self, pattern: str, present: tuple[str, ...]) -> None:
        self.pattern, self.present = pattern, present
        super().__init__(f"interface {pattern!r}: nothing matches; present: {', '.join(present) or 'none'}")


class AttachError(NetwatchError):
    """The kernel refused an attachment."""

    exit_code = 6

    def __init__(self, ifname: str, hook: str, errno: str, hint: str) -> None:
        self.ifname, self.hook, self.errno, self.hint = ifname, hook, errno, hint
        super().__init__(f"cannot attach to {ifname} ({hook}): {errno}; {hint}")


class ProgramRejected(NetwatchError):
    """The programs did not compile or the verifier refused them: report it, with the log that the message names."""

    exit_code = 7

    def __init__(self, program: str, reason: str, log_path: str) -> None:
        self.program, self.reason, self.log_path = program, reason, log_path
        super().__init__(f"program {program}: {reason}; full log: {log_path}; please report it with that file")


class DependencyMissing(NetwatchError):
    """A package is not installed: install it."""

    exit_code = 8

    def __init__(self, package: str, hint: str) -> None:
        self.package, self.hint = package, hint
        super().__init__(f"{package} is not usable: {hint}")


class AddressUnavailable(NetwatchError):
    """A listening address is in use or not ours: choose another."""

    exit_code = 9

    def __init__(self, setting: str, address: str, reason: str) -> None:
        self.setting, self.address, self.reason = setting, address, reason
        super().__init__(f"{setting} {address}: {reason}; choose another HOST:PORT")


class TlsError(NetwatchError):
    """A certificate or key cannot be used: check the file."""

    exit_code = 10

    def __init__(self, setting: str, path: str, reason: str) -> None:
        self.setting, self.path, self.reason = setting, path, reason
        super().__init__(f"{setting} {path}: {reason}")


class DeliveryFailed(NetwatchError):
    """A message could not be delivered this time; the caller keeps it and tries again. Never ends the process."""

    exit_code = 11

    def __init__(self, target: str, reason: str) -> None:
        self.target, self.reason = target, reason
        super().__init__(f"{target}: {reason}")


class OutputClosed(NetwatchError):
    """Whoever read our output has gone for good: end as a SIGTERM does. Nobody made a mistake: exit code 0."""

    exit_code = 0

    def __init__(self, output: str, reason: str) -> None:
        self.output, self.reason = output, reason
        super().__init__(f"{output}: {reason}: nobody reads it any more")


class KernelCallFailed(NetwatchError):
    """A bpf(2) call failed in a way that no setting explains: report it."""

    exit_code = 12

    def __init__(self, command: str, thing: str, errno_name: str) -> None:
        self.command, self.thing, self.errno_name = command, thing, errno_name
        super().__init__(f"bpf({command}) on {thing}: {errno_name}; please report it")


class RecordingUnusable(NetwatchError):
    """A recording cannot be replayed: name another file, or use the version of netwatch that the message names."""

    exit_code = 13

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"recording {path}: {reason}")


class ProcessorUnsupported(NetwatchError):
    """The processor lacks instructions of x86-64-v2: use another machine or processor model."""

    exit_code = 14

    def __init__(self, missing: Sequence[str]) -> None:
        self.missing = missing
        hint = "use a processor of the level x86-64-v2 (since 2009), or give the virtual machine one (qemu: -cpu host)"
        super().__init__(f"processor: it has no {', '.join(missing)}: {hint}")
