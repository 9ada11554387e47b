"""Run a command several times in a row while other processes keep all processors busy.

Law: stress-ng works from before the first run until after the last one; where it ended in between, nothing is proved,
and that is a failure. It ends with this process, however that ends.
Neighbours: `make test-busy` runs the whole suite by this.

Run: python -m tests.busy TIMES WORKERS COMMAND [ARGUMENT…]
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

_END_TIMEOUT_S = 60.0  # for a command that was told to end: tests remove what they have made


class NotBusy(Exception):
    """stress-ng did not work all the time."""


@contextlib.contextmanager
def busy_processors(workers: int) -> Iterator[subprocess.Popen[bytes]]:
    """Keep processors busy by so many processes."""
    # setpriv: the kernel ends stress-ng, and stress-ng its workers, also where this process is killed. A session of its
    # own: Ctrl-C at the terminal ends it by our hand, after the command.
    command = ("setpriv", "--pdeathsig=TERM", "stress-ng", "--quiet", "--cpu", str(workers))
    stress = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield stress
        if stress.poll() is not None:
            raise NotBusy(f"stress-ng ended before the tests did, with exit code {stress.returncode}")
    finally:
        stress.terminate()
        stress.wait()


def run(command: Sequence[str]) -> int:
    """Run a command and return its exit code; where we are told to end, so is the command, and it is waited for."""
    running = subprocess.Popen(command)
    try:
        return running.wait()
    except BaseException:
        running.terminate()
        try:
            running.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        raise


def main(times: int, workers: int, command: Sequence[str]) -> int:
    """Run the command so many times, or until it fails; return the exit code of the last run."""
    with busy_processors(workers) as stress:
        for number in range(1, times + 1):
            exit_code = run(command)
            print(f"busy: run {number} of {times}, beside {workers} busy processes: exit code {exit_code}", flush=True)
            if exit_code or stress.poll() is not None:
                break
    return exit_code


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    try:
        sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
    except (NotBusy, KeyboardInterrupt) as ended:
        sys.exit(f"busy: {ended or 'interrupted'}")
