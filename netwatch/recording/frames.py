"""The frames of a recording, and how they stand in a file.

Law: pure. A frame is one thing that netwatch was given, in the order in which it was given; whatever a drain asks for
has a frame of its own, so that the place of all others in between is known. A frame is whole in the file, or none.
Neighbours: `taps.py` makes frames, `writer.py` and `reader.py` move them, `playback.py` gives them again.

In the file each frame is a msgpack array of two: the CRC-32 of the second, and the second: bytes, which are msgpack,
too. They are an array that begins with the frame's name; in the first frame a map, the header, which every version can
read. A change here, in what a drain asks for, or in its order is another FORMAT_VERSION.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import get_args

import attrs
import msgpack

from netwatch.core.enrichment import TRANSLATION
from netwatch.core.events import EVENT_TYPES
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE

FORMAT, FORMAT_VERSION = "netwatch recording", 1

# What the bytes in the frames mean.
LAYOUT = zlib.crc32(
    repr([dtype.descr for dtype in (FLOW_KEY, FLOW_VALUE, TRANSLATION, *EVENT_TYPES.values())]).encode()
)
# Interface names may be no UTF-8, and maps have numbers as keys.
_PACKING = {"unicode_errors": "surrogateescape"}
_UNPACKING = {"unicode_errors": "surrogateescape", "strict_map_key": False}

Octets = bytes | memoryview
Tally = tuple[int, int]
"""Packets and bytes."""


@attrs.frozen
class Closed:
    """An epoch was closed, by CLOCK_MONOTONIC: a drain begins."""

    epoch: int
    closed_ns: int


@attrs.frozen
class Counted:
    """What the kernel counted in the epoch: by hook, by Counter, by EtherType."""

    seen: Mapping[int, Tally]
    ends: Mapping[int, Tally]
    ethertypes: Mapping[int, Tally]


@attrs.frozen
class Merged:
    """The drops that the epoch merged, of DROP_EVENT, and what the programs have counted of events, by EventKind."""

    drops: Octets
    made: Mapping[int, int]
    lost: Mapping[int, int]
    thinned: Mapping[int, int]
    missed: Mapping[str, int]
    wakes: int


@attrs.frozen
class Offset:
    """Unix time minus CLOCK_MONOTONIC."""

    wall_offset_ns: int


@attrs.frozen
class Rows:
    """A chunk of the epoch's rows, of FLOW_KEY and FLOW_VALUE."""

    keys: Octets
    values: Octets


@attrs.frozen
class RowsEnd:
    """The epoch has no more rows."""


@attrs.frozen
class Named:
    """Names were given to a batch: it is complete."""


@attrs.frozen
class Drained:
    """The drain is over."""


@attrs.frozen
class Ring:
    """What was taken out of the ring at once, in slots of EVENT_SLOT_BYTES."""

    slots: Octets


@attrs.frozen
class Looked:
    """Somebody looked at the ledger of the events: all that was taken so far has been decoded for it."""


@attrs.frozen
class Containers:
    """The containers that are known, by cgroup id, where that has changed."""

    by_cgroup: Mapping[int, str]


@attrs.frozen
class Interfaces:
    """The names of the interfaces, by index, where they have changed."""

    by_ifindex: Mapping[int, str]


@attrs.frozen
class Translated:
    """A connection is translated (NAT): the keys of both directions, of FLOW_KEY."""

    original: Octets
    reply: Octets
    zone: int


@attrs.frozen
class TranslationEnded:
    """A translated connection has ended."""

    original: Octets
    reply: Octets


@attrs.frozen
class TranslationsReplaced:
    """All translated connections that there are, in columns; with `has_more`, the next such frame goes on."""

    originals: Octets
    replies: Octets
    zones: Sequence[int]
    has_more: bool


@attrs.frozen
class End:
    """The run has ended as it should: the drain before was the last."""


OfDrain = Closed | Counted | Merged | Offset | Rows | RowsEnd | Named | Drained
"""What a drain asks for, in this order."""
InBetween = Ring | Looked | Containers | Interfaces | Translated | TranslationEnded | TranslationsReplaced
"""What comes at any time."""
Frame = OfDrain | InBetween | End
_FRAMES: Mapping[str, type[Frame]] = {frame.__name__: frame for frame in get_args(Frame)}
# What msgpack makes of the fields, by the first word of their annotations.
_UNPACKED = {"int": int, "bool": bool, "Octets": bytes, "Mapping": dict, "Sequence": list}


@attrs.frozen(kw_only=True)
class RecordedSettings:
    """The settings of the run that decide what becomes of what is recorded."""

    enrich: tuple[str, ...] = attrs.field(converter=tuple)
    sampling: int
    sampling_mode: str
    max_pending_events: int
    max_recent_flows: int
    max_dns_questions: int
    dns_timeout_s: float
    max_translations: int


@attrs.frozen(kw_only=True)
class Header:
    """What a file begins with. A recording is a run; its files are numbered from 0.

    `restated` frames follow that were in the file before: what is told only when it changes.
    """

    run: bytes
    number: int
    restated: int = 0
    netwatch: str
    kernel: str
    agent_ip: str
    settings: RecordedSettings
    drop_reasons: Mapping[int, str]


class ForeignFormatError(ValueError):
    """The first frame is no header of ours; the text says what it is."""


def encode_header(header: Header) -> bytes:
    """Return the first frame of a file."""
    content = {"format": FORMAT, "version": FORMAT_VERSION, "layout": LAYOUT} | attrs.asdict(header)
    return _enveloped(content)


def encode_frame(frame: Frame) -> bytes:
    """Return a frame as it stands in a file. Copies what it holds once."""
    return _enveloped([type(frame).__name__, *attrs.astuple(frame, recurse=False)])


def _enveloped(content: object) -> bytes:
    packed = msgpack.packb(content, **_PACKING)
    enveloped: bytes = msgpack.packb([zlib.crc32(packed), packed])
    return enveloped


def open_envelope(envelope: object) -> bytes:
    """Return what is in an unpacked envelope. Raises ValueError where it is none, or not as it was written."""
    match envelope:
        case [int(checksum), bytes(packed)] if zlib.crc32(packed) == checksum:
            return packed
    raise ValueError("damaged")


def decode_header(packed: bytes) -> Header:
    """Return a header. Raises ForeignFormatError with the reason why there is none that can be used."""
    try:
        content = msgpack.unpackb(packed, **_UNPACKING)
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ForeignFormatError("is no recording of netwatch")
    writer, version = content.get("netwatch"), content.pop("version", None)
    if version != FORMAT_VERSION:
        age = "newer" if isinstance(version, int) and version > FORMAT_VERSION else "other"
        raise ForeignFormatError(
            f"has the {age} format {version}; this netwatch reads format {FORMAT_VERSION}: use netwatch {writer}"
        )
    if content.pop("layout", None) != LAYOUT:
        raise ForeignFormatError(f"has rows and events that are laid out as in netwatch {writer}: use that version")
    try:
        return Header(**content | {"settings": RecordedSettings(**content["settings"])})
    except (TypeError, KeyError) as error:
        raise ForeignFormatError(f"has a header that says too little: {error}") from error


def decode_frame(packed: bytes) -> Frame:
    """Return a frame. Raises ValueError where it is none that this version knows."""
    try:
        name, *values = msgpack.unpackb(packed, **_UNPACKING)
        kind = _FRAMES[name]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError("no frame that this version knows") from error
    fields = attrs.fields(kind)
    if list(map(type, values)) != [_UNPACKED[str(field.type).partition("[")[0]] for field in fields]:
        raise ValueError(f"no {name} that this version knows")
    return kind(*values)
