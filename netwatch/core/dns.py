"""Match DNS answers with their questions, in bounded memory.

Law: each message gives one fact, matched or not. Of the questions, each is in one place:
questions = matched + timed out + evicted + pending + repeated + not awaited.
Reads no clock. What `expire` returns does not depend on how often it is called.
Neighbours: `core/events.py` decodes the events, `core/dns_message.py` reads the bytes, `core/join.py` takes the facts.

Within a call messages are taken in the order of their times; of one nanosecond questions first, else as they come. From
call to call they must come in that order, and they do: a question is in the ring before the packet moves on, so before
anybody can answer it, and the ring keeps its order over all CPUs. An answer that did come in an earlier call than its
question would count as unmatched.
"""

from __future__ import annotations

import errno
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

import attrs
import numpy as np

from netwatch.core.dns_fact import DNS_FACT
from netwatch.core.dns_message import DnsMessage, read_message
from netwatch.core.enrichment import MAX_DNS_NAME_BYTES
from netwatch.core.layout import FLOW_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_IPV4_PREFIX = np.frombuffer(bytes(10) + b"\xff\xff", "u1")
_FIRST_IPV4_GROUP = 224  # 224.0.0.0/4 are groups; 240.0.0.0/4 is unused but for the broadcast
_IPV6_GROUP = 0xFF


# What a question and its answer have in common.
_EXCHANGE = np.dtype([("key", FLOW_KEY), ("id", ">u2")])  # the flow of the question


class _Question(NamedTuple):
    asked_ns: int
    exchange: bytes
    message: DnsMessage


@attrs.define
class DnsMatcher:
    """Questions that wait for their answers.

    A question is known by its flow and id. Asked again, it is the same one, and latency and timeout count from the
    first time; asked again after the timeout it is another. A pending question is 0.5 KB.
    """

    max_pending_queries: int = attrs.field(validator=attrs.validators.ge(1))
    timeout_ns: int = attrs.field(validator=attrs.validators.ge(1))
    questions: int = attrs.field(default=0, init=False)
    answers: int = attrs.field(default=0, init=False)
    matched: int = attrs.field(default=0, init=False)
    timed_out: int = attrs.field(default=0, init=False)
    evicted: int = attrs.field(default=0, init=False)  # no timeout will be told, and an answer finds nothing
    repeated: int = attrs.field(default=0, init=False)
    not_awaited: int = attrs.field(default=0, init=False)  # to a group, or without a question that can be read
    # By flow and id, oldest first. A dict is not made for taking from its front: it steps over all places freed there.
    _waiting: OrderedDict[bytes, _Question] = attrs.field(factory=OrderedDict, init=False)
    # Out of time, and already replaced by another with the same flow and id.
    _overdue: deque[_Question] = attrs.field(factory=deque, init=False)

    @property
    def pending(self) -> int:
        """Questions for which an answer may come or a timeout will be told."""
        return len(self._waiting) + len(self._overdue)

    def add(self, heads: NDArray[np.void], messages: NDArray[np.uint8]) -> NDArray[np.void]:
        """Take DNS events; return a DNS_FACT (m,) for each, in their order.

        `heads` (m,) are DNS_EVENT; `messages` (m, n) are the bytes of each, as many as `message_bytes` says or as there
        is room for. A fact's latency is 0 but for an answer that was matched.
        """
        facts = np.zeros(len(heads), DNS_FACT)
        if not len(heads):
            return facts
        events = heads["event"]
        parsed = _read_all(heads["message_bytes"], messages)
        facts["time_ns"] = events["time_ns"]
        facts["key"] = events["key"]
        _tell(facts, parsed)
        facts["dns"]["messages"] = 1
        facts["dns"]["latency_ns"] = self._match(events, parsed)
        return facts

    def expire(self, now_ns: int) -> NDArray[np.void]:
        """Give up questions that have waited for the timeout; return a DNS_FACT for each.

        Its time is when the timeout was over, its latency the timeout, its errno ETIMEDOUT; it is no message itself.
        """
        due = [*self._overdue]
        self._overdue.clear()
        while self._waiting and next(iter(self._waiting.values())).asked_ns + self.timeout_ns <= now_ns:
            due.append(self._waiting.popitem(last=False)[1])
        self.timed_out += len(due)
        facts = np.zeros(len(due), DNS_FACT)
        if due:
            facts["time_ns"] = [question.asked_ns + self.timeout_ns for question in due]
            facts["key"] = np.frombuffer(b"".join([question.exchange for question in due]), _EXCHANGE)["key"]
            _tell(facts, [question.message for question in due])
            facts["dns"]["latency_ns"] = self.timeout_ns
            facts["dns"]["errno"] = errno.ETIMEDOUT
        return facts

    def _match(self, events: NDArray[np.void], parsed: Sequence[DnsMessage]) -> list[int]:
        times = events["time_ns"].tolist()
        is_response = np.array([message.is_response for message in parsed], np.bool_)
        exchanges = _exchanges(events["key"], is_response, parsed)
        is_group = _is_group(events["key"]["dst_addr"]).tolist()
        latencies = [0] * len(parsed)
        # Of the same nanosecond the question comes first.
        for row in np.lexsort((is_response, np.asarray(events["time_ns"]))).tolist():
            message = parsed[row]
            if message.is_response:
                latencies[row] = self._answer(exchanges[row], times[row])
            elif is_group[row] or not message.has_question or message.question_count != 1:
                # Members of a group answer from addresses of their own (RFC 6762 6). RFC 9619: no question but one.
                self.questions += 1
                self.not_awaited += 1
            else:
                self._ask(_Question(times[row], exchanges[row], message))
        return latencies

    def _ask(self, question: _Question) -> None:
        self.questions += 1
        before = self._waiting.get(question.exchange)
        if before:
            if question.asked_ns - before.asked_ns < self.timeout_ns:
                self.repeated += 1
                return
            self._overdue.append(self._waiting.pop(question.exchange))
        if self.pending >= self.max_pending_queries:
            self._evict()
        self._waiting[question.exchange] = question

    def _answer(self, exchange: bytes, time_ns: int) -> int:
        self.answers += 1
        question = self._waiting.get(exchange)
        # An answer that is too late leaves its question, which the client has given up, to `expire`.
        if not question or not 0 <= (latency_ns := time_ns - question.asked_ns) < self.timeout_ns:
            return 0
        del self._waiting[exchange]
        self.matched += 1
        return latency_ns

    def _evict(self) -> None:
        if self._overdue:
            self._overdue.popleft()
        else:
            self._waiting.popitem(last=False)
        self.evicted += 1


def _read_all(message_bytes: NDArray[np.uint16], messages: NDArray[np.uint8]) -> list[DnsMessage]:
    width = messages.shape[1]
    octets = messages.tobytes()
    # Behind its end a message is padded with zeros, which would be taken for the root.
    lengths = np.minimum(message_bytes, width).tolist()
    return [read_message(octets[row * width : row * width + length]) for row, length in enumerate(lengths)]


def _tell(facts: NDArray[np.void], parsed: Sequence[DnsMessage]) -> None:
    dns = facts["dns"]
    dns["id"] = [message.id for message in parsed]
    dns["flags"] = [message.flags for message in parsed]
    dns["question_type"] = [message.question_type for message in parsed]
    dns["name_bytes"] = [len(message.name) for message in parsed]
    names = b"".join([message.name.ljust(MAX_DNS_NAME_BYTES, b"\0") for message in parsed])
    dns["name"] = np.frombuffer(names, "u1").reshape(-1, MAX_DNS_NAME_BYTES)


def _exchanges(keys: NDArray[np.void], is_response: NDArray[np.bool_], parsed: Sequence[DnsMessage]) -> list[bytes]:
    exchanges = np.zeros(len(keys), _EXCHANGE)
    exchanges["id"] = [message.id for message in parsed]
    asked, size = exchanges["key"], _EXCHANGE.itemsize
    asked[:] = keys
    for here, there in (("src_addr", "dst_addr"), ("src_port", "dst_port")):
        asked[here][is_response] = keys[there][is_response]
        asked[there][is_response] = keys[here][is_response]
    octets = exchanges.tobytes()
    return [octets[start : start + size] for start in range(0, len(octets), size)]


def _is_group(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    is_ipv4 = (addresses[:, : len(_IPV4_PREFIX)] == _IPV4_PREFIX).all(axis=1)
    return np.where(is_ipv4, addresses[:, 12] >= _FIRST_IPV4_GROUP, addresses[:, 0] == _IPV6_GROUP)
