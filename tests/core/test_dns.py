"""Matching DNS answers with their questions."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import struct
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.dns import DnsMatcher
from netwatch.core.layout import DNS_EVENT, FLOW_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
TIMEOUT_NS = 5_000_000_000
WIDTH = 312  # what a message may take in the largest event
NAME = b"\x03www\x07example\x03org"


@attrs.frozen(kw_only=True)
class Message:
    """A message in the terms of a test: a question of a client, or the answer to it."""

    time_ns: int = 0
    id: int = 1
    is_answer: bool = False
    response_code: int = 0
    client: str = CLIENT
    server: str = SERVER
    client_port: int = 40_000
    protocol: int = 17
    name: bytes = NAME
    question_type: int = 1
    questions: int = 1

    @property
    def key(self) -> NDArray[np.void]:
        """The flow that carries it."""
        ends = [(self.client, self.client_port), (self.server, 53)]
        (src, src_port), (dst, dst_port) = reversed(ends) if self.is_answer else ends
        key = np.zeros((), FLOW_KEY)
        key["src_addr"], key["dst_addr"] = address(src), address(dst)
        key["src_port"], key["dst_port"], key["protocol"] = src_port, dst_port, self.protocol
        return key

    @property
    def flags(self) -> int:
        """The second word of its header."""
        return (0x8180 | self.response_code) if self.is_answer else 0x0100

    @property
    def octets(self) -> bytes:
        """What is on the wire."""
        header = struct.pack("!6H", self.id, self.flags, self.questions, 0, 0, 0)
        return header + self.name + b"\0" + struct.pack("!HH", self.question_type, 1)


def address(text: str) -> list[int]:
    found = ipaddress.ip_address(text)
    return list(found.packed if found.version == 6 else bytes(10) + b"\xff\xff" + found.packed)


def question(time_ns: int = 0, **others: Any) -> Message:
    return Message(time_ns=time_ns, **others)


def answer(time_ns: int, **others: Any) -> Message:
    return Message(time_ns=time_ns, is_answer=True, **others)


def events_of(messages: Sequence[Message], width: int = WIDTH) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
    """Lay messages out as decoded events."""
    heads, octets = np.zeros(len(messages), DNS_EVENT), np.zeros((len(messages), width), np.uint8)
    for row, message in enumerate(messages):
        heads[row]["event"]["time_ns"], heads[row]["event"]["key"] = message.time_ns, message.key
        heads[row]["message_bytes"] = len(message.octets)
        copied = message.octets[:width]
        octets[row, : len(copied)] = list(copied)
    return heads, octets


def matcher(max_pending_queries: int = 100) -> DnsMatcher:
    return DnsMatcher(max_pending_queries=max_pending_queries, timeout_ns=TIMEOUT_NS)


def latencies(found: NDArray[np.void]) -> list[int]:
    return [int(latency) for latency in found["dns"]["latency_ns"]]


def assert_accounted(dns: DnsMatcher) -> None:
    """Check the law of the module."""
    ends = (dns.matched, dns.timed_out, dns.evicted, dns.pending, dns.repeated, dns.not_awaited)
    assert dns.questions == sum(ends)
    assert dns.pending <= dns.max_pending_queries
    assert dns.matched <= dns.answers


@pytest.mark.parametrize("ends", [{}, {"client": "fd00::1", "server": "fd00::2"}, {"protocol": 6}])
def test_question_and_answer(ends: dict[str, Any]) -> None:
    """Each is a fact of the flow that carried it; the answer's has the time that it took."""
    asked, answered = question(1_000, **ends), answer(21_000_000, response_code=3, **ends)
    dns = matcher()
    found = dns.add(*events_of([asked, answered]))
    for fact, message, latency_ns in zip(found, (asked, answered), (0, 20_999_000), strict=True):
        assert fact["time_ns"] == message.time_ns
        assert fact["key"] == message.key
        assert (fact["dns"]["latency_ns"], fact["dns"]["messages"], fact["dns"]["errno"]) == (latency_ns, 1, 0)
        assert (fact["dns"]["id"], fact["dns"]["flags"], fact["dns"]["question_type"]) == (1, message.flags, 1)
        assert bytes(fact["dns"]["name"][: fact["dns"]["name_bytes"]]) == NAME
        assert not fact["dns"]["name"][fact["dns"]["name_bytes"] :].any()
    assert (dns.questions, dns.answers, dns.matched, dns.pending) == (1, 1, 1, 0)


def test_nothing_came() -> None:
    """No events are no facts."""
    dns = matcher()
    assert len(dns.add(*events_of([]))) == len(dns.expire(TIMEOUT_NS)) == 0


@pytest.mark.parametrize(
    "others",
    [{"id": 2}, {"client": "10.0.0.3"}, {"server": "10.0.0.3"}, {"client_port": 40_001}, {"protocol": 6}],
)
def test_answer_to_another_question(others: dict[str, Any]) -> None:
    """An answer belongs to a question of the same id between the same ends, and to no other."""
    dns = matcher()
    assert latencies(dns.add(*events_of([question(0), answer(7, **others)]))) == [0, 0]
    assert (dns.answers, dns.matched, dns.pending) == (1, 0, 1)


def test_answer_that_came_twice() -> None:
    """The first answer is the answer."""
    dns = matcher()
    assert latencies(dns.add(*events_of([question(0), answer(7), answer(9)]))) == [0, 7, 0]
    assert (dns.answers, dns.matched) == (2, 1)


def test_question_that_was_repeated() -> None:
    """The latency is from the first time that it was asked, and so is the timeout."""
    dns = matcher()
    assert latencies(dns.add(*events_of([question(0), question(10), answer(17)]))) == [0, 0, 17]
    dns.add(*events_of([question(20), question(30)]))
    assert [int(time) for time in dns.expire(TIMEOUT_NS + 30)["time_ns"]] == [TIMEOUT_NS + 20]
    assert_accounted(dns)
    assert dns.repeated == 2


def test_answer_before_its_question_in_the_array() -> None:
    """Within a call the times decide, not the places."""
    assert latencies(matcher().add(*events_of([answer(7), question(3)]))) == [4, 0]


def test_answer_in_the_nanosecond_of_its_question() -> None:
    """Of one time the question is first."""
    dns = matcher()
    dns.add(*events_of([answer(3), question(3)]))
    assert (dns.matched, dns.pending) == (1, 0)


@pytest.mark.parametrize("names", [(NAME, b"\x05other"), (b"\x05other", NAME)])
def test_questions_in_the_same_nanosecond(names: tuple[bytes, bytes]) -> None:
    """Of one exchange, the first in the ring is the question, and the other one asks it again."""
    dns = matcher()
    dns.add(*events_of([question(3, name=name) for name in names]))
    (fact,) = dns.expire(3 + TIMEOUT_NS)
    assert bytes(fact["dns"]["name"][: fact["dns"]["name_bytes"]]) == names[0]
    assert (dns.repeated, dns.timed_out) == (1, 1)


def test_nobody_answers() -> None:
    """After the timeout, and not before, a question is a failure of its own flow, told once."""
    asked = question(11, id=77, question_type=28)
    dns = matcher()
    dns.add(*events_of([asked]))
    assert len(dns.expire(11 + TIMEOUT_NS - 1)) == 0
    (fact,) = dns.expire(11 + TIMEOUT_NS)
    assert (fact["time_ns"], fact["key"]) == (11 + TIMEOUT_NS, asked.key)
    told = fact["dns"]
    assert (told["errno"], told["latency_ns"], told["messages"]) == (errno.ETIMEDOUT, TIMEOUT_NS, 0)
    assert (told["id"], told["flags"], told["question_type"]) == (77, 0x0100, 28)
    assert bytes(told["name"][: told["name_bytes"]]) == NAME
    assert len(dns.expire(11 + 2 * TIMEOUT_NS)) == 0
    assert (dns.timed_out, dns.pending) == (1, 0)


def test_answer_after_the_timeout() -> None:
    """It is too late, whether or not the timeout has been told yet."""
    for is_told in (False, True):
        dns = matcher()
        dns.add(*events_of([question(0)]))
        told = len(dns.expire(TIMEOUT_NS)) if is_told else 0
        assert latencies(dns.add(*events_of([answer(TIMEOUT_NS)]))) == [0]
        assert told + len(dns.expire(TIMEOUT_NS)) == 1
        assert (dns.matched, dns.timed_out) == (0, 1)


def test_question_asked_again_after_the_timeout() -> None:
    """It is another question: the first has failed, and the second has its own answer."""
    dns = matcher()
    dns.add(*events_of([question(0)]))
    found = dns.add(*events_of([question(TIMEOUT_NS), answer(TIMEOUT_NS + 5)]))
    assert latencies(found) == [0, 5]
    assert [int(time) for time in dns.expire(TIMEOUT_NS)["time_ns"]] == [TIMEOUT_NS]
    assert_accounted(dns)


def test_more_questions_than_there_is_room_for() -> None:
    """The oldest is evicted, and counted: its answer finds nothing, and no timeout is told."""
    dns = matcher(max_pending_queries=3)
    dns.add(*events_of([question(number, id=number) for number in range(5)]))
    assert (dns.evicted, dns.pending) == (2, 3)
    assert latencies(dns.add(*events_of([answer(10, id=1), answer(10, id=2)]))) == [0, 8]
    assert [int(number) for number in dns.expire(2 * TIMEOUT_NS)["dns"]["id"]] == [3, 4]
    assert_accounted(dns)


def test_failures_that_nobody_fetches() -> None:
    """What has failed and was not fetched yet counts among the pending, and is evicted first."""
    dns = matcher(max_pending_queries=2)
    dns.add(*events_of([question(number * TIMEOUT_NS) for number in range(5)]))
    assert (dns.pending, dns.evicted) == (2, 3)
    assert [int(time) // TIMEOUT_NS for time in dns.expire(5 * TIMEOUT_NS)["time_ns"]] == [4, 5]


@pytest.mark.parametrize("group", ["224.0.0.251", "239.1.2.3", "255.255.255.255", "ff02::fb"])
def test_question_to_a_group(group: str) -> None:
    """Members answer from addresses of their own, so no answer is waited for."""
    client = "fd00::1" if ":" in group else CLIENT
    dns = matcher()
    assert len(dns.add(*events_of([question(0, client=client, server=group)]))) == 1
    assert len(dns.expire(TIMEOUT_NS)) == 0
    assert (dns.questions, dns.not_awaited) == (1, 1)


@pytest.mark.parametrize("others", [{"questions": 0}, {"questions": 2}, {"name": b"\x40"}, {"name": b"\xc0\x0c"}])
def test_question_that_is_none(others: dict[str, Any]) -> None:
    """What only looks like a question, as the middle of a stream may, fails nobody when it gets no answer."""
    dns = matcher()
    (fact,) = dns.add(*events_of([question(0, id=9, **others)]))
    assert (fact["dns"]["id"], fact["dns"]["messages"]) == (9, 1)
    assert len(dns.expire(TIMEOUT_NS)) == 0
    assert_accounted(dns)


def test_message_that_was_longer_than_what_was_copied() -> None:
    """The zeros behind what was copied are no part of the message."""
    (fact,) = matcher().add(*events_of([question(0)], width=20))
    assert (fact["dns"]["id"], fact["dns"]["name_bytes"]) == (1, 0)


def test_message_with_more_behind_the_question() -> None:
    """Bytes of another message in the same place of the array are not read."""
    heads, octets = events_of([question(0)])
    heads["message_bytes"] = 20
    (fact,) = matcher().add(heads, octets)
    assert fact["dns"]["name_bytes"] == 0


exchanges = st.lists(
    st.builds(
        Message,
        time_ns=st.integers(0, 3 * TIMEOUT_NS // 1_000_000_000).map(lambda second: second * 1_000_000_000),
        id=st.integers(0, 2),
        is_answer=st.booleans(),
        client_port=st.sampled_from([40_000, 40_001]),
        server=st.sampled_from([SERVER, "224.0.0.251"]),
        name=st.sampled_from([NAME, b"", b"\x80"]),
    ),
    max_size=30,
)


def in_order(messages: Sequence[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: (message.time_ns, message.is_answer))


def mixed(messages: Sequence[Message], random: Any) -> list[Message]:
    """Mix them. Those of one exchange, direction and nanosecond keep their order: nothing else says which was first."""
    ties: defaultdict[tuple[object, ...], deque[Message]] = defaultdict(deque)
    places = []
    for message in messages:
        exchange = (message.client, message.client_port, message.server, message.protocol, message.id)
        places.append((*exchange, message.is_answer, message.time_ns))
        ties[places[-1]].append(message)
    random.shuffle(places)
    return [ties[place].popleft() for place in places]


def told_by(dns: DnsMatcher, calls: Sequence[Sequence[Message]], is_eager: bool) -> list[bytes]:
    """Return all facts, sorted; an eager reader asks for failures after each call."""
    facts: list[bytes] = []
    for messages in calls:
        facts += [fact.tobytes() for fact in dns.add(*events_of(messages))]
        if is_eager and messages:
            facts += [fact.tobytes() for fact in dns.expire(max(message.time_ns for message in messages))]
        assert_accounted(dns)
    facts += [fact.tobytes() for fact in dns.expire(100 * TIMEOUT_NS)]
    assert_accounted(dns)
    return sorted(facts)


@given(exchanges, st.randoms(use_true_random=False), st.booleans())
def test_any_order_within_a_call(messages: list[Message], random: Any, is_eager: bool) -> None:
    """However the messages stand in the array, the same is told of each, as far as their times tell them apart."""
    assert told_by(matcher(), [mixed(messages, random)], is_eager) == told_by(matcher(), [in_order(messages)], is_eager)


@given(exchanges, st.lists(st.integers(0, 30), max_size=4), st.booleans())
def test_any_cut_into_calls(messages: list[Message], cuts: list[int], is_eager: bool) -> None:
    """Wherever the ring was read in between, and however often failures were asked for, the same is told."""
    ordered = in_order(messages)
    bounds = [0, *sorted(min(cut, len(ordered)) for cut in cuts), len(ordered)]
    calls = [ordered[start:end] for start, end in itertools.pairwise(bounds)]
    assert told_by(matcher(), calls, is_eager) == told_by(matcher(), [ordered], is_eager=False)


@given(exchanges, st.integers(1, 4))
def test_any_messages_with_little_room(messages: list[Message], room: int) -> None:
    """The limit is kept, each message has its fact, and each question its end."""
    dns = matcher(max_pending_queries=room)
    told_by(dns, [[message] for message in messages], is_eager=True)
    assert dns.questions + dns.answers == len(messages)
    assert dns.pending == 0


@given(exchanges)
def test_facts_are_in_the_order_of_the_events(messages: list[Message]) -> None:
    """A fact stands where its event stood."""
    found = matcher().add(*events_of(messages))
    assert [int(time) for time in found["time_ns"]] == [message.time_ns for message in messages]
    assert [fact.tobytes() for fact in found["key"]] == [message.key.tobytes() for message in messages]
    assert (found["dns"]["messages"] == 1).all()
