"""Single facts in a person's words.

Law: pure; what comes out cannot steer a terminal, whatever a process, a domain or a drop reason is called.
Neighbours: `core/notes.py` strings them together, `core/fact_cells.py` gives each a column.
"""

from __future__ import annotations

import errno

from netwatch.core.dns_code_names import question_type_name
from netwatch.core.quantities import short_time
from netwatch.core.record import PROTOCOLS_WITH_PORTS, FlowRecord
from netwatch.core.record_facts import DnsFacts, ProcessFacts, TcpFacts, TranslationFacts
from netwatch.core.socket_names import error_name
from netwatch.core.terminal_text import endpoint, harmless

_REASON_PREFIX = "SKB_DROP_REASON_"


def drop_reason_words(name: str) -> str:
    """Return the name of a drop reason without what all of them begin with."""
    return harmless(name.removeprefix(_REASON_PREFIX))


def question_words(dns: DnsFacts) -> str:
    """Return what was asked: `A example.org`."""
    name = harmless(dns.name)
    return f"{question_type_name(dns.question_type)} {name}".rstrip() if dns.question_type else name


def silence_words(dns: DnsFacts) -> str:
    """Return why there is no answer, if there is none."""
    if not dns.errno:
        return ""
    return "no answer" if dns.errno == errno.ETIMEDOUT else error_name(dns.errno)


def connect_words(tcp: TcpFacts) -> str:
    """Return how long it took to connect, and why it failed if it did."""
    time = short_time(tcp.connect_ns) if tcp.connect_ns else ""
    if not tcp.connect_errno:
        return time
    return f"{error_name(tcp.connect_errno)} after {time}" if time else error_name(tcp.connect_errno)


def process_name(process: ProcessFacts | None) -> str:
    """Return what to call a process; its number if it has no name, nothing if neither is known."""
    if process is None:
        return ""
    return harmless(process.name) or (f"pid {process.pid}" if process.pid else "")


def translation_words(record: FlowRecord, after: TranslationFacts) -> str:
    """Return the ends that NAT has changed: `snat 192.0.2.1:4000 dnat 10.1.2.3:80`."""
    words = []
    if (after.src_addr, after.src_port) != (record.src_addr, record.src_port):
        words.append(f"snat {_end(record, after.src_addr, after.src_port)}")
    if (after.dst_addr, after.dst_port) != (record.dst_addr, record.dst_port):
        words.append(f"dnat {_end(record, after.dst_addr, after.dst_port)}")
    return " ".join(words)


def _end(record: FlowRecord, address: str, port: int) -> str:
    return endpoint(address, port) if record.protocol in PROTOCOLS_WITH_PORTS else address
