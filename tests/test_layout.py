"""`bpf/netwatch.h` and `core/layout.py` describe the same bytes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from netwatch.core import layout
from netwatch.core.direction import Direction
from netwatch.kernel import compile  # noqa: A004 - the module's name
from netwatch.kernel.source import source_directory

STRUCTS = {
    "flow_key": layout.FLOW_KEY,
    "flow_value": layout.FLOW_VALUE,
    "tally": layout.TALLY,
    "hook_tally": layout.HOOK_TALLY,
    "fragment_key": layout.FRAGMENT_KEY,
    "fragment_value": layout.FRAGMENT_VALUE,
    "event": layout.EVENT,
    "drop_event": layout.DROP_EVENT,
    "rtt_event": layout.RTT_EVENT,
    "dns_event": layout.DNS_EVENT,
    "tcp_event": layout.TCP_EVENT,
    "owner": layout.OWNER,
    "owner_event": layout.OWNER_EVENT,
    "hook_event": layout.HOOK_EVENT,
    "flow_event": layout.FLOW_EVENT,
}
CONSTANTS = ("HOOK_EGRESS", "MAX_OBSERVED", "FLOW_MAPS", "COUNTED_EPOCHS", "HOOK_SLOTS", "FLAG_SYN_ACK")
CONSTANTS += ("FLAG_FIN_ACK", "FLAG_RST_ACK", "EVENT_SLOT_BYTES", "EVENT_HEAD_BYTES", "EVENT_BYTES", "EVENT_MAX_SLOTS")
# How Python's members are spelled in C.
ENUMS = (
    ("EVENT_{}", layout.EventKind),
    ("EVENT_{}", layout.EventCounter),
    ("TCP_{}", layout.TcpHappening),
    ("END_{}", layout.FlowEnd),
)
PROGRAM_BITS = {"PROGRAM_EGRESS": compile._EGRESS, "PROGRAM_IP": compile._IP, "PROGRAM_KIND_MARK": compile._KIND_MARK}
PROGRAM_BITS |= {"RING_MARK": compile._RING_MARK}
EPOCHS = (0, 1, 2, 3, 4, 5, 1_000_003)


def _fields(name: str) -> list[str]:
    """Return the fields of a C structure, as the header spells them."""
    header = (source_directory() / "netwatch.h").read_text()
    body = re.search(rf"struct {name} {{(.*?)\n}};", header, re.DOTALL)
    assert body
    return re.findall(r"^\t(?:__u\d+|struct \w+) (\w+)", body[1], re.MULTILINE)


def _enumerators() -> dict[str, int]:
    """Return the members of Python's enums under their names in C."""
    return {spelling.format(member.name): member for spelling, members in ENUMS for member in members}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """Every size, offset and constant as a C compiler sees it."""
    lines = []
    for name in STRUCTS:
        lines.append(f'printf("\\"{name}\\": {{\\"sizeof\\": %zu", sizeof(struct {name}));')
        lines += [
            f'printf(", \\"{field}\\": %zu, \\"{field}:size\\": %zu", offsetof(struct {name}, {field}), '
            f"sizeof(((struct {name} *)0)->{field}));"
            for field in _fields(name)
        ]
        lines.append('printf("}, ");')
    lines.append('printf("\\"constants\\": {");')
    lines += [f'printf("\\"{name}\\": %llu, ", (unsigned long long){name});' for name in (*CONSTANTS, *PROGRAM_BITS)]
    lines += [f'printf("\\"{c.name}\\": %d, ", COUNTER_{c.name});' for c in layout.Counter]
    lines += [f'printf("\\"{name}\\": %d, ", {name});' for name in _enumerators()]
    lines += [f'printf("\\"{name}\\": %d, ", {name});' for name in ("EVENT_KINDS", "EVENT_COUNTERS")]
    lines += [
        f'printf("\\"epoch{number}\\": %u, ", EPOCH_CURRENT({word}ull) + 10 * EPOCH_PREVIOUS({word}ull)'
        f" + 100 * EPOCH_PARITY({word}ull));"
        for number, word in ((number, layout.epoch_word(number)) for number in EPOCHS)
    ]
    lines.append('printf("\\"COUNTERS\\": %d}", COUNTERS);')
    text = "#include <stddef.h>\n#include <stdio.h>\n#include <linux/types.h>\n"
    text += f'#include "{source_directory() / "netwatch.h"}"\n'
    text += 'int main(void) { printf("{"); ' + "\n".join(lines) + ' printf("}"); return 0; }\n'
    directory: Path = tmp_path_factory.mktemp("layout")
    (directory / "layout.c").write_text(text)
    subprocess.run(["cc", "-Wall", "-Werror", "-o", directory / "layout", directory / "layout.c"], check=True)
    answer = subprocess.run([directory / "layout"], check=True, capture_output=True, text=True).stdout
    return json.loads(answer)


@pytest.mark.parametrize("name", STRUCTS)
def test_structure(name: str, compiled: dict[str, dict[str, int]]) -> None:
    """Every field of the structure has the same name, offset and size on both sides, in the same order."""
    ours = STRUCTS[name]
    theirs = compiled[name]
    assert ours.itemsize == theirs["sizeof"]
    assert list(ours.names or ()) == _fields(name)
    for field in ours.names or ():
        dtype, offset = ours.fields[field][:2]  # type: ignore[index]
        assert (offset, np.dtype(dtype).itemsize) == (theirs[field], theirs[f"{field}:size"]), field


def test_constants(compiled: dict[str, dict[str, int]]) -> None:
    """Every constant and every counter has the same number on both sides, and no counter is missing."""
    theirs = compiled["constants"]
    for name in CONSTANTS:
        assert getattr(layout, name) == theirs[name], name
    for name, value in PROGRAM_BITS.items():
        assert value == theirs[name], name
    for counter in layout.Counter:
        assert counter == theirs[counter.name], counter
    assert len(layout.Counter) == theirs["COUNTERS"]
    for name, number in _enumerators().items():
        assert number == theirs[name], name
    assert len(layout.EventKind) == theirs["EVENT_KINDS"]
    assert len(layout.EventCounter) == theirs["EVENT_COUNTERS"]


@pytest.mark.parametrize("number", EPOCHS)
def test_epoch_word(number: int, compiled: dict[str, dict[str, int]]) -> None:
    """The programs read from the epoch word the map, the map before and the half that user space means."""
    expected = number % 3 + 10 * ((number - 1) % 3) + 100 * (number % 2)
    assert compiled["constants"][f"epoch{number}"] == expected


def test_hook_round_trip() -> None:
    """A hook number gives back its interface and its direction."""
    for direction in Direction:
        hook = layout.hook_of(2**31 - 1, direction)
        assert layout.ifindex_of(hook) == 2**31 - 1
        assert layout.direction_of(hook) is direction
