"""What is told of a compilation that failed, from logs as clang, the verifier and bcc wrote them."""

from __future__ import annotations

import pytest

from netwatch.kernel.program import _first_complaint

COMPILER = """\
In file included from /virtual/main.c:4:
In file included from /virtual/include/bcc/helpers.h:20:
/usr/include/linux/bpf.h:1: warning: something else entirely
netwatch.bpf.c:48:2: error: use of undeclared identifier 'no_such_type'
        no_such_type x;
        ^
parse.bpf.h:7:9: error: expected ';' after expression
2 errors generated.
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/bcc/__init__.py", line 479, in __init__
    raise Exception("Failed to compile BPF module %s" % (src_file or "<text>"))
Exception: Failed to compile BPF module <text>
"""

VERIFIER = """\
bpf: Failed to load program: Permission denied
0: R1=ctx() R10=fp0
;  @ netwatch.bpf.c:48
0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()
2: (71) r1 = *(u8 *)(r1 +0)
invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0

Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/bcc/__init__.py", line 526, in load_func
    raise Exception("Failed to load BPF program %s: %s" %
Exception: Failed to load BPF program b'ingress_ethernet': Permission denied
"""

MAP = """\
could not open bpf map: flows_0, error: Cannot allocate memory
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/bcc/__init__.py", line 479, in __init__
    raise Exception("Failed to compile BPF module %s" % (src_file or "<text>"))
Exception: Failed to compile BPF module <text>
"""


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        (COMPILER, "netwatch.bpf.c:48:2: error: use of undeclared identifier 'no_such_type'"),
        (VERIFIER, "R1 offset is outside of the packet"),
        (MAP, "could not open bpf map: flows_0, error: Cannot allocate memory"),
        ("Traceback\n  File\nException: whatever bcc said\n", "Exception: whatever bcc said"),
        ("x.c:1:1: error: " + "x" * 500, "x.c:1:1: error: " + "x" * 184),
        ("", "the compiler ended without a word"),
    ],
    ids=["compiler", "verifier", "map", "bcc", "endless line", "nothing"],
)
def test_line_that_tells_most(log: str, complaint: str) -> None:
    """One line of the log, short enough to be read: where the compiler or the verifier stopped."""
    assert _first_complaint(log) == complaint
