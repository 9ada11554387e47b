"""Matching DNS messages that come together, at times as a kernel tells them: long after the start."""

from __future__ import annotations

from tests.core.test_dns import TIMEOUT_NS, answer, events_of, latencies, matcher, question

LATE_NS = 86_400_000_000_000


def test_question_that_was_repeated_late() -> None:
    """Asked again within the timeout it is the same question, however long the machine has been up."""
    dns = matcher()
    first, again = question(LATE_NS), question(LATE_NS + TIMEOUT_NS - 1)
    assert latencies(dns.add(*events_of([first, again]))) == [0, 0]
    assert (dns.repeated, dns.pending) == (1, 1)


def test_question_that_is_another() -> None:
    """Asked again when the timeout is over it is another question, and the first has failed."""
    dns = matcher()
    dns.add(*events_of([question(LATE_NS), question(LATE_NS + TIMEOUT_NS), answer(LATE_NS + TIMEOUT_NS + 9)]))
    assert (dns.repeated, dns.matched) == (0, 1)
    assert dns.expire(LATE_NS + TIMEOUT_NS)["time_ns"].tolist() == [LATE_NS + TIMEOUT_NS]


def test_groups_among_others() -> None:
    """What goes to a group is known by its own address, whatever family the messages beside it are of."""
    dns = matcher()
    groups = [question(id=1, server="224.0.0.251"), question(id=2, client="fe80::1", server="ff02::fb")]
    others = [question(id=3), question(id=4, client="fd00::1", server="fd00::2")]
    dns.add(*events_of([*groups, *others]))
    assert (dns.questions, dns.not_awaited, dns.pending) == (4, 2, 2)
