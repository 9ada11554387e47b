"""What stands in `bpf/` beside `netwatch.h` and once more in Python is the same: maps, their entries, numbers.

Law: each constant of `bpf/*.h` is compared, or named here as one that only C has, so a new one cannot be forgotten.
What Python passes to the compiler as -D stands in one place and needs no comparison.
See also: `test_layout.py`, the same for `netwatch.h`.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from netwatch.config import SETTINGS
from netwatch.core import dns_message, events, join, socket_names
from netwatch.core.dns_fact import DNS_FACT
from netwatch.core.enrichment import MAX_DNS_NAME_BYTES
from netwatch.core.layout import DNS_EVENT, EVENT, FLOW_KEY, FLOW_MAPS, OWNER, EventCounter, EventKind, epoch_word
from netwatch.kernel import (
    compile,  # noqa: A004 - the module's name
    conntrack,
    counters,
    drop_tables,
    event_source,
    program,
    sockets,
)
from netwatch.kernel.source import source_directory
from netwatch.settings.kinds import Several
from tests.test_layout import CONSTANTS, PROGRAM_BITS

EPOCHS = (0, 1, 2, 1_000_003)
RING_PAGES = 16
# Each map becomes an enumerator: its number of entries. What comes as -D is a number that nothing else is.
MAPS_AS_NUMBERS = f"""
#include <stddef.h>
#include <stdio.h>
#include <linux/bpf.h>
#include <linux/types.h>
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
#define MAX_FLOWS 1009
#define FILTER_WORDS 1013
#define MAX_FRAGMENTS 1019
#define RING_PAGES {RING_PAGES}
#define BPF_ARRAY(name, leaf, entries) enum {{ name = (entries) }}
#define BPF_PERCPU_ARRAY(name, leaf, entries) enum {{ name = (entries) }}
#define BPF_TABLE(type, key, leaf, name, entries) enum {{ name = (entries) }}
#define BPF_F_TABLE(type, key, leaf, name, entries, flags) enum {{ name = (entries) }}
#define BPF_ARRAY_OF_MAPS(name, inner, entries) enum {{ name = (entries) }}
#define BPF_RINGBUF_OUTPUT(name, pages) enum {{ name = (pages) }}
#define BPF_ANNOTATE_KV_PAIR(name, key, leaf) enum {{ name##_annotated }}
#include "maps.bpf.h"
"""

MAPS = (
    "flows_0 flows_1 flows_2 flow_maps flow_filter epoch hook_overflow ethertypes ring_wake event_counters drop_tables"
)
NUMBERS = "DROP_HALVES DROP_SLOTS RING_WAKE_BYTES HOME_SILENCE_NS DNS_HEADER_BYTES DNS_HEAD_BYTES DNS_MOST_BYTES"
STRUCTS = {
    "event": ["key"],
    "drop_slot": ["pending", "turn"],
    "drop_table": ["slots"],
    "drop_turn": ["number", "used"],
    "ring_wake": ["position", "count"],
    "socket_note": ["owner", "connecting_ns"],
}
ONLY_IN_C = {
    "OBSERVED_WORDS",  # half of MAX_OBSERVED
    "EPOCH_NUMBER_SHIFT",  # Python has it in what it makes of a number: test_number_of_an_epoch
    *("TOLD_SOURCE", "TOLD_DESTINATION"),  # notes of a program to itself
    *("FULL_FOR_NS", "FRAGMENT_LIFETIME_NS"),  # how long a program remembers
    *("DNS_LENGTH_BYTES", "VLAN_BYTES", "VXLAN_BYTES", "VXLAN_FLAGS", "VLAN_TAGS", "EXTENSION_HEADERS"),  # of packets
    *("IPV4_MORE_FRAGMENTS", "IPV4_FRAGMENT_OFFSET", "IPV6_MORE_FRAGMENTS", "IPV6_FRAGMENT_OFFSET"),
    *("OFFSET_LIMIT", "COPIED_BYTES", "IN_FLOW", "NOT_IP"),  # how a packet is read, and where it ends meanwhile
    *("AF_INET", "AF_INET6"),  # the kernel's, as socket.AF_INET is
}


def text_of(header: str) -> str:
    """Return the text of a header of ours."""
    return (source_directory() / header).read_text()


def line_of(header: str, name: str) -> str:
    """Return the line that defines a constant, of a header that only BCC can compile as a whole."""
    found = re.search(rf"^#define {name} .*$", text_of(header), re.MULTILINE)
    assert found, name
    return found[0]


def answers_of(directory: Path, declarations: str, expressions: list[str]) -> dict[str, int]:
    """Return what C makes of some expressions."""
    prints = "".join(f'printf("%llu ", (unsigned long long)({expression}));\n' for expression in expressions)
    text = f"{declarations}\nint main(void) {{ {prints} return 0; }}\n"
    (directory / "constants.c").write_text(text)
    command = ["cc", "-Wall", "-Werror", "-Wno-unused-variable", f"-I{source_directory()}"]
    subprocess.run([*command, "-o", directory / "constants", directory / "constants.c"], check=True)
    answer = subprocess.run([directory / "constants"], check=True, capture_output=True, text=True).stdout
    return dict(zip(expressions, map(int, answer.split()), strict=True))


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Every number that is compared, by its expression in C."""
    silence = line_of("account.bpf.h", "HOME_SILENCE_NS")
    dns = [line_of("dns.bpf.h", name) for name in ("DNS_HEADER_BYTES", "DNS_HEAD_BYTES", "DNS_MOST_BYTES")]
    states = tcp_states()
    expressions = [*MAPS.split(), *NUMBERS.split(), *names_in(states)]
    expressions += [f"sizeof(struct {name})" for name in STRUCTS]
    expressions += [f"offsetof(struct {name}, {field})" for name, fields in STRUCTS.items() for field in fields]
    expressions += [f"{epoch_word(number)}ull >> EPOCH_NUMBER_SHIFT" for number in EPOCHS]
    declarations = "\n".join([MAPS_AS_NUMBERS, silence, *dns, states])
    return answers_of(tmp_path_factory.mktemp("constants"), declarations, expressions)


def tcp_states() -> str:
    """Return the line that numbers the TCP states which a program looks for."""
    (line,) = re.findall(r"^enum \{ TCP_.*\};$", text_of("kernel.bpf.h"), re.MULTILINE)
    return line


def names_in(enumeration: str) -> list[str]:
    """Return the names in an enumeration of TCP states."""
    return re.findall(r"TCP_\w+", enumeration)


def test_entries_of_maps(in_c: dict[str, int]) -> None:
    """A reader's buffers are as long as its map, so that one batch holds all of it."""
    assert {name: in_c[name] for name in counters._HASH_ENTRIES} == counters._HASH_ENTRIES
    assert in_c["event_counters"] == len(EventKind) * len(EventCounter)
    assert in_c["ring_wake"] == in_c["epoch"] == 1
    assert in_c["flow_maps"] == FLOW_MAPS == len(compile.FLOW_MAP_NAMES)
    assert in_c["flow_filter"] == FLOW_MAPS * 1013
    assert {in_c[name] for name in compile.FLOW_MAP_NAMES} == {1009}


def test_drop_tables(in_c: dict[str, int]) -> None:
    """Halves, slots and turns are where user space takes them from."""
    assert (in_c["DROP_HALVES"], in_c["DROP_SLOTS"]) == (drop_tables._HALVES, drop_tables._SLOTS)
    assert in_c["drop_tables"] == drop_tables._HALVES
    slot = drop_tables._SLOT
    assert in_c["sizeof(struct drop_slot)"] == slot.itemsize
    assert in_c["sizeof(struct drop_table)"] == slot.itemsize * drop_tables._SLOTS
    for name in ("pending", "turn"):
        assert in_c[f"offsetof(struct drop_slot, {name})"] == slot.fields[name][1]  # type: ignore[index]
    # Read as words: the number, then one for each half.
    assert (in_c["offsetof(struct drop_turn, number)"], in_c["offsetof(struct drop_turn, used)"]) == (0, 8)
    assert in_c["sizeof(struct drop_turn)"] == 8 * (1 + drop_tables._HALVES)


def test_ring(in_c: dict[str, int]) -> None:
    """Wake-ups are counted where they are read, a page is as large as Python says, a key is where the join looks."""
    wake = event_source._RING_WAKE
    assert in_c["sizeof(struct ring_wake)"] == wake.itemsize
    for name in ("position", "count"):
        assert in_c[f"offsetof(struct ring_wake, {name})"] == wake.fields[name][1]  # type: ignore[index]
    assert in_c["RING_WAKE_BYTES"] == RING_PAGES * program._RING_PAGE_BYTES // 4
    assert in_c["offsetof(struct event, key)"] == join._KEY_OFFSET
    assert {dtype.fields["key"][1] for dtype in (EVENT, DNS_FACT)} == {join._KEY_OFFSET}  # type: ignore[index]


def test_home_silence(in_c: dict[str, int]) -> None:
    """A flow whose packets find the map full moves to another hook when it would move in the map."""
    assert in_c["HOME_SILENCE_NS"] == join._HOME_SILENCE_NS


def test_dns(in_c: dict[str, int]) -> None:
    """A message begins where it is looked for, and as much of it comes as there is room for: any name."""
    assert in_c["DNS_HEADER_BYTES"] == dns_message.HEADER_BYTES
    assert in_c["DNS_HEAD_BYTES"] == DNS_EVENT.fields["message"][1]  # type: ignore[index]
    assert in_c["DNS_MOST_BYTES"] == events.MESSAGE_BYTES
    assert events.MESSAGE_BYTES >= dns_message.HEADER_BYTES + MAX_DNS_NAME_BYTES + 4
    compared = set(re.findall(r"DNS_PORT_\d+", text_of("dns.bpf.h")))
    assert compared == {f"DNS_PORT_{place}" for place in range(len(program._NO_PORTS))}
    (ports,) = (setting.kind for setting in SETTINGS if setting.name == "dns_ports")
    assert isinstance(ports, Several)
    assert ports.at_most == len(program._NO_PORTS)


def test_tcp_states(in_c: dict[str, int]) -> None:
    """The states that a program looks for have the names that people see."""
    names = names_in(tcp_states())
    assert "TCP_TIME_WAIT" in names
    for name in names:
        assert socket_names.tcp_state_name(in_c[name]) == name


def test_note_of_a_socket(in_c: dict[str, int]) -> None:
    """An owner that user space writes stands where the programs read it."""
    note = sockets._NOTE.pack(1, 2, 3, b"command", 4)
    assert len(note) == in_c["sizeof(struct socket_note)"]
    (owner,) = np.frombuffer(note, OWNER, 1, in_c["offsetof(struct socket_note, owner)"])
    assert [int(owner[name]) for name in ("cgroup_id", "pid", "pad")] == [1, 2, 3]
    assert owner["command"].tobytes() == b"command" + bytes(9)
    assert note[in_c["offsetof(struct socket_note, connecting_ns)"] :] == (4).to_bytes(8, "little")


def test_key_of_a_connection() -> None:
    """A key that conntrack's answer becomes is a flow key, field by field."""
    packed = conntrack._KEY.pack(bytes(range(16)), bytes(range(16, 32)), 1, 2, 3, 4, 5)
    assert len(packed) == FLOW_KEY.itemsize
    (key,) = np.frombuffer(packed, FLOW_KEY)
    assert (key["src_addr"].tolist(), key["dst_addr"].tolist()) == ([*range(16)], [*range(16, 32)])
    assert [int(key[name]) for name in ("src_port", "dst_port", "protocol", "icmp_type", "icmp_code")] == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_number_of_an_epoch(in_c: dict[str, int]) -> None:
    """The programs read an epoch's number where Python puts it."""
    assert [in_c[f"{epoch_word(number)}ull >> EPOCH_NUMBER_SHIFT"] for number in EPOCHS] == [*EPOCHS]


def test_none_is_forgotten(in_c: dict[str, int]) -> None:
    """Each constant of the programs is compared, or known as one that user space does not have."""
    defined = {
        name: header.name
        for header in sorted(source_directory().glob("*.h"))
        for name, value in re.findall(r"^#define (\w+) +(\S.*)$", header.read_text(), re.MULTILINE)
    }
    assert len(defined) > 40
    compared = {*CONSTANTS, *PROGRAM_BITS, *in_c}
    assert defined.keys() - compared - ONLY_IN_C == set()
    assert defined.keys() >= ONLY_IN_C
