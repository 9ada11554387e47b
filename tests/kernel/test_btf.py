"""Facts of the running kernel, against a second reader of the same format and against names that never change."""

from __future__ import annotations

import ctypes
import functools
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netwatch.errors import KernelUnsupported
from netwatch.kernel.btf import Btf, Kind
from tests.kernel.waiting import PATIENCE_S

VMLINUX = Path("/sys/kernel/btf/vmlinux")
# Bytes that follow the three words of a type, by kind: for each of its vlen members, and once.
PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
ONCE = {1: 4, 3: 12, 14: 4, 17: 4}


class SecondReader:
    """All of vmlinux's types, read from the start to the end as Documentation/bpf/btf.rst describes them."""

    def __init__(self) -> None:
        raw = VMLINUX.read_bytes()
        _, _, _, header_bytes, types_at, types_bytes, strings_at, _ = struct.unpack_from("=HBBIIIII", raw)
        self.strings = raw[header_bytes + strings_at :]
        self.types: list[tuple[str, int, int, int, bytes]] = [("void", 0, 0, 0, b"")]
        at, end = header_bytes + types_at, header_bytes + types_at + types_bytes
        while at < end:
            name, info, target = struct.unpack_from("=III", raw, at)
            kind, count = info >> 24 & 31, info & 0xFFFF
            size = PER_MEMBER.get(kind, 0) * count + ONCE.get(kind, 0)
            self.types.append((self.text(name), kind, info >> 31, target, raw[at + 12 : at + 12 + size]))
            at += 12 + size

    def text(self, at: int) -> str:
        return self.strings[at : self.strings.index(b"\0", at)].decode()

    def number(self, name: str, kind: int) -> int:
        return next(number for number, record in enumerate(self.types) if record[:2] == (name, kind))

    def members(self, number: int, base_bits: int = 0, prefix: str = "") -> Iterator[tuple[str, int, bool]]:
        """Yield path, place in bits and whether it is a bit field, of each member however deep."""
        _, kind, has_widths, target, members = self.types[number]
        if kind in (8, 9, 10, 11, 18):
            yield from self.members(target, base_bits, prefix)
        elif kind in (4, 5):
            for name_at, inner, bits in struct.iter_unpack("=III", members):
                place = base_bits + (bits & 0xFFFFFF if has_widths else bits)
                if name := self.text(name_at):
                    yield prefix + name, place, bool(has_widths and bits >> 24)
                yield from self.members(inner, place, f"{prefix}{name}." if name else prefix)


@functools.cache
def second_reader() -> SecondReader:
    return SecondReader()


@pytest.fixture(scope="module")
def btf() -> Iterator[Btf]:
    with Btf() as btf:
        yield btf


@pytest.mark.parametrize("structure", ["sk_buff", "sock", "tcp_sock", "net_device", "net", "request_sock", "iphdr"])
def test_every_member_is_where_it_is(btf: Btf, structure: str) -> None:
    """Each member, those of unnamed unions and of members included, is found where the other reader sees it."""
    reader = second_reader()
    found = 0
    for path, bits, is_bit_field in reader.members(reader.number(structure, Kind.STRUCT)):
        if path.count(".") > 1:
            continue
        assert btf.has_member(structure, path)
        if not is_bit_field:
            assert btf.offset(structure, path) == bits // 8, path
            found += 1
    assert found > 9
    assert btf.size(structure) == reader.types[reader.number(structure, Kind.STRUCT)][3]


def test_what_the_programs_need(btf: Btf) -> None:
    """The fields that programs read are there, each at a place of its own."""
    places = [btf.offset("sk_buff", name) for name in ("len", "protocol", "network_header", "mac_header", "dev", "sk")]
    places += [btf.offset("sk_buff", name) for name in ("head", "data", "end", "transport_header", "skb_iif")]
    assert len(set(places)) == len(places)
    assert btf.offset("iphdr", "saddr") == 12
    assert btf.offset("tcphdr", "dest") == 2
    # "skc_daddr must be the first", include/net/sock.h.
    assert btf.offset("sock", "__sk_common.skc_daddr") == 0
    assert btf.offset("sock", "__sk_common.skc_dport") == btf.offset("sock_common", "skc_dport")


def test_bit_field(btf: Btf) -> None:
    """A bit field is a member, and asking for its address is refused."""
    assert btf.has_member("sk_buff", "pkt_type")
    with pytest.raises(KernelUnsupported, match="member pkt_type of struct sk_buff: is a bit field of 3 bits"):
        btf.offset("sk_buff", "pkt_type")


@pytest.mark.parametrize(
    ("structure", "member"),
    [("sk_buff", "no_such"), ("no_such", "len"), ("sk_buff", "len.no_such"), ("sock", "__sk_common.no_such")],
)
def test_missing_member(btf: Btf, structure: str, member: str) -> None:
    """What this kernel does not have is said, by name."""
    assert not btf.has_member(structure, member)
    with pytest.raises(KernelUnsupported, match=r"no_such.*not in this kernel's BTF"):
        btf.offset(structure, member)


@pytest.mark.parametrize(
    ("name", "arguments"), [("kfree_skb", (3, 4)), ("inet_sock_set_state", (3,)), ("tcp_retransmit_skb", (2, 3))]
)
def test_tracepoint(btf: Btf, name: str, arguments: tuple[int, ...]) -> None:
    """A tracepoint has its type, and as many arguments as a kernel of some version gives it."""
    assert btf.has_tracepoint(name)
    assert btf.tracepoint_id(name) == second_reader().number(f"btf_trace_{name}", Kind.TYPEDEF)
    assert btf.tracepoint_args(name) in arguments


def test_missing_tracepoint(btf: Btf) -> None:
    """A tracepoint that this kernel does not have is said, by name."""
    assert not btf.has_tracepoint("no_such")
    with pytest.raises(KernelUnsupported, match="btf_trace_no_such"):
        btf.tracepoint_id("no_such")


def test_drop_reasons(btf: Btf) -> None:
    """The core's reasons are those of its enum; what only limits or masks them, or says "not dropped", is none."""
    reader = second_reader()
    enumerators = reader.types[reader.number("skb_drop_reason", Kind.ENUM)][4]
    expected = {value: reader.text(name) for name, value in struct.iter_unpack("=II", enumerators)}
    names = btf.drop_reasons()
    assert {number: name for number, name in names.items() if number < 1 << 16}.items() <= expected.items()
    left_out = {expected[value] for value in expected.keys() - names.keys()}
    no_reasons = {"SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "SKB_DROP_REASON_MAX", "SKB_DROP_REASON_SUBSYS_MASK"}
    assert left_out <= no_reasons
    assert names[2] == "SKB_DROP_REASON_NOT_SPECIFIED"


def module_btf(enumerations: dict[bytes, dict[bytes, int]]) -> bytes:
    """Make the BTF of a module that declares enums, as the kernel shows it in /sys/kernel/btf."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    for name in ("btf__load_vmlinux_btf", "btf__new_empty_split", "btf__raw_data"):
        getattr(libbpf, name).restype = ctypes.c_void_p
    libbpf.btf__add_enum.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)
    libbpf.btf__add_enum_value.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64)
    libbpf.btf__free.argtypes = (ctypes.c_void_p,)
    base = libbpf.btf__load_vmlinux_btf()
    split = libbpf.btf__new_empty_split(ctypes.c_void_p(base))
    for name, values in enumerations.items():
        assert libbpf.btf__add_enum(split, name, 4) > 0
        for text, value in values.items():
            assert libbpf.btf__add_enum_value(split, text, value) == 0
    size = ctypes.c_uint32()
    raw = ctypes.string_at(libbpf.btf__raw_data(ctypes.c_void_p(split), ctypes.byref(size)), size.value)
    libbpf.btf__free(split)
    libbpf.btf__free(base)
    return raw


def test_drop_reasons_of_modules(btf: Btf, tmp_path: Path) -> None:
    """Subsystems' reasons have their names; what is only there to count from, or twice, is not told twice."""
    wireless = {b"RX_QUEUED": 0, b"RX_CONTINUE": 1, b"RX_DROP_U_REPLAY": 0x20001}
    doubled = {b"___" + name: value for name, value in wireless.items()}
    tmp_path.joinpath("mac80211").write_bytes(
        module_btf({b"mac80211_drop_reason": wireless, b"___mac80211_drop_reason": doubled})
    )
    switch = {b"__OVS_DROP_REASON": 0x30000, b"OVS_DROP_LAST_ACTION": 0x30001, b"OVS_DROP_MAX": 0x30002}
    tmp_path.joinpath("openvswitch").write_bytes(module_btf({b"ovs_drop_reason": switch, b"other": {b"OTHER": 9}}))
    tmp_path.joinpath("broken").write_bytes(b"no BTF")
    tmp_path.joinpath("vmlinux").write_bytes(b"not looked at")

    of_modules = btf.drop_reasons(tmp_path).items() - btf.drop_reasons(tmp_path / "none").items()

    assert dict(of_modules) == {0x20001: "RX_DROP_U_REPLAY", 0x30001: "OVS_DROP_LAST_ACTION"}


def test_kernel_without_btf() -> None:
    """Where there is no BTF, one line says so, and libbpf adds none of its own."""
    script = (
        "import ctypes, os; libc = ctypes.CDLL(None); assert libc.unshare(0x20000) == 0\n"
        # Not '/': in a chroot that is no mount.
        "assert libc.mount(b'none', b'/sys', None, 0x44000, None) == 0\n"
        "assert libc.mount(b'none', b'/sys', b'tmpfs', 0, None) == 0\n"
        "from netwatch.kernel.btf import Btf\nBtf()\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert finished.stderr.splitlines()[-1].startswith("netwatch.errors.KernelUnsupported: BTF (/sys/kernel/btf/vmlin")
    assert "libbpf" not in finished.stderr
    assert "CONFIG_DEBUG_INFO_BTF" in finished.stderr


def test_import_is_light() -> None:
    """The compile child imports it: neither numpy nor attrs comes along."""
    script = (
        "import netwatch.kernel.btf, sys; print([n for n in ('numpy', 'attrs', 'attr', 'trio') if n in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert finished.stdout.strip() == "[]"
