"""Whose turn it is: round robin, failover and pauses, on times that the test names."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.errors import ConfigError
from netwatch.exporters.targets import Rotation, parse_targets
from netwatch.settings.addresses import Address

A, B, C = (Address(name, 2055) for name in "abc")


def rotation(*addresses: Address, min_s: float = 0.1, max_s: float = 30.0) -> Rotation:
    return Rotation(addresses, (min_s, max_s), random.Random(1))


def order(targets: Rotation, now_s: float = 0.0) -> list[Address]:
    return [target.address for target in targets.order(now_s)]


def fail(targets: Rotation, *addresses: Address, now_s: float = 0.0, took_s: float = 0.0) -> None:
    for address in addresses:
        everyone = {target.address: target for target in targets.order(float("inf"))}
        targets.failed(everyone[address], now_s, took_s)


def test_urls() -> None:
    """Hosts are names or addresses, IPv6 in brackets, and each target has its port."""
    assert parse_targets("grpc://collector:2055") == (Address("collector", 2055),)
    assert parse_targets("grpcs://a:2055,[2001:db8::1]:1,192.0.2.1:65535") == (
        A,
        Address("2001:db8::1", 1),
        Address("192.0.2.1", 65535),
    )


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("grpc://", "is not HOST:PORT"),
        ("grpc://a", "'a' is not HOST:PORT"),
        ("grpc://:1", "':1' is not HOST:PORT"),
        ("grpc://a:1,", "'' is not HOST:PORT"),
        ("grpc://a:0", "port '0' is not a number from 1 to 65535"),
        ("grpc://a:65536", "port '65536'"),
        ("grpc://a:x", "port 'x'"),
        ("grpc://2001:db8::1:2055", "an IPv6 address stands in brackets"),
        ("grpc://[a]:1", "an IPv6 address stands in brackets"),
        ("grpc://a:1/path", "port '1/path'"),
        ("grpc://user@a:1", "'user@a' is no host"),
        ("http://a:1", "expected stdout, grpc://HOST:PORT or grpcs://HOST:PORT"),
    ],
)
def test_bad_url(url: str, complaint: str) -> None:
    """The complaint names the setting, the URL and what is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        parse_targets(url)
    assert caught.value.setting == "exporters"
    assert repr(url) in str(caught.value)
    assert complaint in str(caught.value)


def test_all_work() -> None:
    """Messages go round."""
    targets = rotation(A, B, C)
    firsts = []
    for _ in range(6):
        target = targets.order(0.0)[0]
        firsts.append(target.address)
        targets.succeeded(target)
    assert firsts == [A, B, C, A, B, C]


def test_one_fails() -> None:
    """It is passed over until its pause has ended; the others share its turns evenly."""
    targets = rotation(A, B, C, min_s=10.0)
    fail(targets, A)
    firsts = []
    for _ in range(4):
        assert A not in order(targets, 4.9)
        target = targets.order(4.9)[0]
        firsts.append(target.address)
        targets.succeeded(target)
    assert firsts == [B, C, B, C]
    assert order(targets, 15.1)[0] == A


def test_all_fail() -> None:
    """All are tried, the one whose pause ends first before the others: whoever retries has waited already."""
    targets = rotation(A, B, C, min_s=1.0)
    fail(targets, B, now_s=0.0)
    fail(targets, C, now_s=10.0)
    fail(targets, A, now_s=20.0)
    assert order(targets, 20.0)[0] == B  # its pause is over
    assert order(targets, 0.0) == [B, C, A]


def test_pauses_grow() -> None:
    """They double with each failure up to the longest, with jitter of a half, and begin again after a success."""
    targets = rotation(A, min_s=0.1, max_s=30.0)
    (target,) = targets.order(0.0)
    for failures in range(20):
        targets.failed(target, 100.0, 0.0)
        nominal_s = 0.1 * 2**failures
        assert 100 + min(0.5 * nominal_s, 30.0) <= target.retry_at_s <= 100 + min(1.5 * nominal_s, 30.0)
    targets.succeeded(target)
    assert not target.is_failing
    targets.failed(target, 100.0, 0.0)
    assert 100.05 <= target.retry_at_s <= 100.15


def test_target_that_hangs() -> None:
    """Its pause is at least as long as the attempt was, so that it costs no more than half of the time."""
    targets = rotation(A, B)
    fail(targets, A, now_s=10.0, took_s=10.0)
    assert order(targets, 19.9) == [B]
    assert A in order(targets, 20.0)


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans(), st.floats(0, 10)), max_size=40))
def test_any_history(history: list[tuple[Address, bool, float]]) -> None:
    """There is always somebody to try, nobody twice, and nobody in a pause while another one is ready."""
    targets = rotation(A, B, C)
    now_s = 0.0
    for address, is_success, passed_s in history:
        now_s += passed_s
        target = next(target for target in targets.order(float("inf")) if target.address == address)
        if is_success:
            targets.succeeded(target)
        else:
            targets.failed(target, now_s, 0.0)
        chosen = targets.order(now_s)
        assert chosen
        assert len({target.address for target in chosen}) == len(chosen)
        paused = [target.retry_at_s > now_s for target in chosen]
        assert all(paused) or not any(paused)
        assert not any(paused) or len(chosen) == len(targets)
