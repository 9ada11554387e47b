"""Facts of the running kernel: where its structures keep what, and what its numbers are called.

Law: nothing is assumed of a kernel's layout; what BTF does not say is an error that names it, never a guess.
Neighbours: `compile.py` gives the offsets to the programs as defines and attaches to the tracepoints by their type;
`agent.py` asks for the names of drop reasons. Imported by the compile child: the standard library and errors only.
Source: Documentation/bpf/btf.rst; libbpf's btf.h.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import os
import re
import struct
from pathlib import Path
from types import TracebackType

from netwatch.errors import DependencyMissing, KernelUnsupported

_LIBRARY = "libbpf.so.1"
MODULE_DIRECTORY = Path("/sys/kernel/btf")  # a file for each loaded module, and one for vmlinux
_RECORD = struct.Struct("=III")  # struct btf_type: name, info, size or type; struct btf_member: name, type, bit offset
_ENUMERATOR = struct.Struct("=II")  # struct btf_enum: name, value
_HEADER = struct.Struct("=HBBIIIII")  # struct btf_header: magic, version, flags, its length, types at, length, strings…
# Whole strings. Those of a module begin without the empty one.
_DROP_REASON_ENUM = re.compile(rb"(?<![^\0])\w*drop_reason(?=\0)")
_SUBSYSTEM_SHIFT = 16  # SKB_DROP_REASON_SUBSYS_SHIFT
_NOT_DROPPED = ("SKB_NOT_DROPPED_YET", "SKB_CONSUMED")


class Kind(enum.IntEnum):
    """`BTF_KIND_*`, those that are looked for or walked through."""

    PTR = 2
    STRUCT = 4
    UNION = 5
    ENUM = 6
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC_PROTO = 13
    TYPE_TAG = 18


_ALIASES = {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG}


@functools.cache
def _libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise DependencyMissing(_LIBRARY, f"{error}; install libbpf1, which comes with python3-bpfcc") from error
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
    for name, result, *arguments in (
        ("btf__load_vmlinux_btf", pointer),
        ("btf__parse_split", pointer, text, pointer),
        ("btf__free", None, pointer),
        ("btf__find_by_name_kind", ctypes.c_int32, pointer, text, number),
        ("btf__type_by_id", pointer, pointer, number),
        ("btf__name_by_offset", text, pointer, number),
        ("btf__raw_data", pointer, pointer, ctypes.POINTER(number)),
        ("libbpf_set_print", pointer, pointer),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Btf:
    """The types of the running kernel. Close it when done: it holds 20 MB. Opening takes 20 ms.

    Raises KernelUnsupported where the kernel has no BTF, DependencyMissing where libbpf is not there. Whatever is not
    found later raises KernelUnsupported, too.
    """

    def __init__(self) -> None:
        self._libbpf = _libbpf()
        # It would tell on stderr where it looked in vain.
        former = self._libbpf.libbpf_set_print(None)
        self._btf = self._libbpf.btf__load_vmlinux_btf()
        errno = ctypes.get_errno()
        self._libbpf.libbpf_set_print(former)
        if not self._btf:
            hint = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount /sys into the container"
            if MODULE_DIRECTORY.joinpath("vmlinux").exists():
                hint = "use a libbpf that is not older than the kernel"
            raise KernelUnsupported("BTF (/sys/kernel/btf/vmlinux)", os.strerror(errno), hint)

    def __enter__(self) -> Btf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        if self._btf:
            self._libbpf.btf__free(self._btf)
            self._btf = None

    def type_id(self, name: str, kind: Kind) -> int:
        """Return the number of a type of vmlinux."""
        found = self._find(self._btf, name, kind)
        if found is None:
            raise KernelUnsupported(f"{kind.name.lower()} {name}", "not in this kernel's BTF", "use another kernel")
        return found

    def size(self, structure: str) -> int:
        """Return the size of a struct in bytes."""
        return self._record(self.type_id(structure, Kind.STRUCT))[2]

    def offset(self, structure: str, member: str) -> int:
        """Return where a member of a struct is, in bytes; `a.b.c` is a member of a member.

        Members of unnamed structs and unions are found as C finds them.
        """
        where = f"member {member} of struct {structure}"
        found = self._member_bits(structure, member)
        if found is None:
            raise KernelUnsupported(where, "not in this kernel's BTF", "use another kernel")
        bits, width_bits = found
        if bits % 8 or width_bits % 8:
            raise KernelUnsupported(where, f"is a bit field of {width_bits} bits", "use another kernel")
        return bits // 8

    def has_member(self, structure: str, member: str) -> bool:
        """Whether there is such a struct with such a member. Bit fields count, though they have no offset."""
        return self._find(self._btf, structure, Kind.STRUCT) is not None and bool(self._member_bits(structure, member))

    def has_tracepoint(self, name: str) -> bool:
        """Whether programs can attach to a tracepoint by its type."""
        return self._find(self._btf, f"btf_trace_{name}", Kind.TYPEDEF) is not None

    def tracepoint_id(self, name: str) -> int:
        """Return the type by which BPF_PROG_LOAD knows a tracepoint (`attach_btf_id`)."""
        return self.type_id(f"btf_trace_{name}", Kind.TYPEDEF)

    def tracepoint_args(self, name: str) -> int:
        """Return how many arguments the programs of a tracepoint get."""
        # typedef void (*btf_trace_NAME)(void *, …): the first is the tracepoint's own.
        _, _, pointer = self._record(self.tracepoint_id(name))
        _, _, prototype = self._record(pointer)
        _, info, _ = self._record(prototype)
        assert info >> 24 & 31 == Kind.FUNC_PROTO
        return (info & 0xFFFF) - 1

    def drop_reasons(self, modules: Path = MODULE_DIRECTORY) -> dict[int, str]:
        """Return the names of all reasons to drop a packet, those of loaded modules included.

        Empty before Linux 5.17, which gave no reasons. A module whose BTF cannot be read is left out.
        """
        names = self._drop_reasons_in(self._btf)
        for path in sorted(modules.iterdir()) if modules.is_dir() else ():
            if path.name == "vmlinux":
                continue
            former = self._libbpf.libbpf_set_print(None)
            module = self._libbpf.btf__parse_split(os.fsencode(path), self._btf)
            self._libbpf.libbpf_set_print(former)
            if module:
                names |= self._drop_reasons_in(module)
                self._libbpf.btf__free(module)
        return names

    def _drop_reasons_in(self, btf: int) -> dict[int, str]:
        """Return the reasons of one module or vmlinux."""
        # Of a module there are the own strings and types only. Walking all types instead takes 0.2 s.
        names = {}
        for enumeration in sorted(set(_DROP_REASON_ENUM.findall(self._strings(btf))), reverse=True):
            found = self._find(btf, enumeration.decode(), Kind.ENUM)
            if found is None:
                continue
            at = self._libbpf.btf__type_by_id(btf, found)
            count = _RECORD.unpack(ctypes.string_at(at, _RECORD.size))[1] & 0xFFFF
            enumerators = ctypes.string_at(at + _RECORD.size, count * _ENUMERATOR.size)
            for name_at, value in _ENUMERATOR.iter_unpack(enumerators):
                name = self._name(name_at, btf)
                if _is_drop_reason(name, value, is_core=enumeration == b"skb_drop_reason"):
                    # mac80211 has each of its reasons twice, the second time as ___NAME.
                    names[value] = name.lstrip("_")
        return names

    def _strings(self, btf: int) -> bytes:
        size = ctypes.c_uint32()
        raw = self._libbpf.btf__raw_data(btf, ctypes.byref(size))
        header = _HEADER.unpack(ctypes.string_at(raw, _HEADER.size))
        header_bytes, strings_at, strings_bytes = header[3], header[6], header[7]
        return ctypes.string_at(raw + header_bytes + strings_at, strings_bytes)

    def _find(self, btf: int | None, name: str, kind: Kind) -> int | None:
        assert btf, "closed"
        found: int = self._libbpf.btf__find_by_name_kind(btf, name.encode(), kind)
        return found if found > 0 else None

    def _record(self, number: int) -> tuple[int, int, int]:
        """Return name, info and size (or type) of a type: the start of struct btf_type."""
        at = self._libbpf.btf__type_by_id(self._btf, number)
        name, info, size_or_type = _RECORD.unpack(ctypes.string_at(at, _RECORD.size))
        return name, info, size_or_type

    def _name(self, name_at: int, btf: int | None = None) -> str:
        name: bytes = self._libbpf.btf__name_by_offset(btf or self._btf, name_at)
        return name.decode()

    def _member_bits(self, structure: str, path: str) -> tuple[int, int] | None:
        """Return where a member is and how wide, in bits; the width is 0 for what is no bit field."""
        number, bits, width_bits = self.type_id(structure, Kind.STRUCT), 0, 0
        for name in path.split("."):
            found = self._member_of(self._unaliased(number), name)
            if found is None:
                return None
            number, at_bits, width_bits = found
            bits += at_bits
        return bits, width_bits

    def _member_of(self, number: int, wanted: str) -> tuple[int, int, int] | None:
        """Return type, place and width of a member."""
        _, info, _ = self._record(number)
        if info >> 24 & 31 not in (Kind.STRUCT, Kind.UNION):
            return None
        at = self._libbpf.btf__type_by_id(self._btf, number) + _RECORD.size
        for name_at, kind, bits in _RECORD.iter_unpack(ctypes.string_at(at, (info & 0xFFFF) * _RECORD.size)):
            # "If the kind_flag is set, the btf_member.offset contains both member bitfield size and bit offset."
            width_bits, at_bits = (bits >> 24, bits & 0xFFFFFF) if info >> 31 else (0, bits)
            if name_at:
                if self._name(name_at) == wanted:
                    return kind, at_bits, width_bits
            elif inner := self._member_of(self._unaliased(kind), wanted):
                return inner[0], at_bits + inner[1], inner[2]
        return None

    def _unaliased(self, number: int) -> int:
        """Return what is behind typedefs and qualifiers."""
        while True:
            _, info, target = self._record(number)
            if info >> 24 & 31 not in _ALIASES:
                return number
            number = target


def _is_drop_reason(name: str, value: int, *, is_core: bool) -> bool:
    if name.endswith("_MAX") or "_SUBSYS_" in name or name in _NOT_DROPPED:
        return False
    # A subsystem's numbers have its own in the upper half. Its others are the core's for "not dropped", and
    # __OVS_DROP_REASON, the first, only begins the counting.
    if is_core:
        return True
    return bool(value >> _SUBSYSTEM_SHIFT) and not (name.startswith("_") and value & 0xFFFF == 0)
