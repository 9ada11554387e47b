"""A process that waits for the daemon's end, and removes its filters where it could not.

Law: it waits as a shell that sleeps in one read(2), and holds nothing but that pipe: no terminal, no stream, no
descriptor of the daemon's. Signals that end a process group, or ask a control group to end, do not end it.
Neighbours: `tc.py` starts and dismisses it, `tc_owner.py` removes.

*How it knows.* Only the daemon has the other end of the pipe. A daemon that has removed its filters says so, and the
shell ends. Whatever else ends the daemon closes the pipe without a word; then the shell becomes Python, which waits
until the daemon's claim is free, too, and does what each run does at its start. On a 2 vCPU VM under load, filters and
qdiscs of 20 interfaces had gone 0.15 to 0.5 s after SIGKILL; those of 500 take 0.5 s more.

*Why a shell.* It takes 0.3 MB (Pss; 0.1 of its own), where Python with these modules takes 13. A fork of the daemon
would share most of that, but copy locks that other threads hold.

*What it cannot do.* Who ends all of a control group or of a PID namespace by SIGKILL, as a container's runtime does,
ends it as well. Then the next run removes the filters; `tc_entry.py` says what they are until then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time

import attrs

from netwatch.kernel.tc_claim import is_claimed
from netwatch.kernel.tc_owner import remove_stale_filters

_NAME = "netwatch-guardian"
_DISMISSED = b"dismissed\n"
# What a shell ignores, Python goes on ignoring after exec. The name, $0, is for whoever looks at the list of processes.
_WAIT = 'trap "" HUP INT QUIT TERM; read -r dismissed || exec "$1" -m netwatch.kernel.tc_guardian "$2"'
_END_TIMEOUT_S = 1.0
# The kernel closes the descriptors of a killed process one after the other, and waits for grace periods in between.
_CLAIM_TIMEOUT_S = 30.0
_CLAIM_PAUSE_S = 0.01

_log = logging.getLogger(__name__)


@attrs.frozen
class Guardian:
    """The waiting process, and the pipe that tells it."""

    _process: subprocess.Popen[bytes]

    def dismiss(self) -> None:
        """Let it end: nothing is to be removed. Blocks until it has ended, which takes 1 ms."""
        pipe = self._process.stdin
        assert pipe
        with contextlib.suppress(BrokenPipeError), pipe:  # somebody has killed it
            pipe.write(_DISMISSED)
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _log.warning("process %d (%s) has been stopped; it ends when it is continued", self._process.pid, _NAME)


def start_guardian(port: int) -> Guardian | None:
    """Start the process for the owner with this claim; None, with a warning, where there is no shell."""
    try:
        process = subprocess.Popen(
            ["sh", "-c", _WAIT, _NAME, sys.executable, str(port)],
            executable="/bin/sh",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",  # no file system is kept from being unmounted, and no file of the user's hides a module
            start_new_session=True,  # Ctrl-C and a kill of the group are for the daemon
        )
    except OSError as error:
        _log.warning("no guardian: /bin/sh: %s; what SIGKILL leaves stays until the next run", error.strerror)
        return None
    return Guardian(process)


def main() -> None:
    """Wait until the owner with the claim that is the first argument has gone, and remove what it left."""
    port = int(sys.argv[1])
    deadline = time.monotonic() + _CLAIM_TIMEOUT_S
    while is_claimed(port) and time.monotonic() < deadline:
        time.sleep(_CLAIM_PAUSE_S)
    remove_stale_filters()
    # The interpreter's own end takes longer than the work, and undoes nothing.
    os._exit(0)


if __name__ == "__main__":
    main()
