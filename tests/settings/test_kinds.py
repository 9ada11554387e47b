"""Kinds of values: what is taken, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.settings.exporter_url import ExporterUrl
from netwatch.settings.interface_pattern import InterfacePattern
from netwatch.settings.kinds import (
    Choice,
    Count,
    FilePath,
    IpAddress,
    Kind,
    ListenAddress,
    Optional,
    Seconds,
    Several,
    Switch,
)

ALL_KINDS: list[Kind[object]] = [
    Seconds(0.05, 3600),
    Seconds(1, 86_400, zero_means="never"),
    Count(1, 1 << 32),
    Switch(),
    Choice(("table", "json")),
    Optional(Seconds(0.05, 3600)),
    Several(InterfacePattern(), 4),
    Several(ExporterUrl(), 4),
    InterfacePattern(),
    ExporterUrl(),
    FilePath(),
    ListenAddress(),
    IpAddress(),
]

# Everything that TOML can hold, and texts close to what is meant.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes()
    | st.from_regex(r"\A[0-9]{1,4}(\.[0-9])? ?(ms|s|m|h)?\Z")
    | st.from_regex(r"\A(grpcs?|stdout|http)(://)?([a-z0-9.:\[\],]{0,20})?\Z")
    | st.from_regex(r"\A/[a-z.*+?()\[\]{}\\|0-9]{0,12}/?\Z")
    | st.sampled_from(["TABLE", "on", "::1", "10.0.0.1", "[::1]:9090", ":9090", "9090", "eth0", "/veth.*/", "stdout"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=2),
    max_leaves=4,
)


def attempt(kind: Kind[object], value: object) -> object:
    """Return what a value becomes, or the refusal, which has to say something."""
    try:
        return kind.parse(value)
    except ValueError as error:
        refusal = error
    assert str(refusal)
    return refusal


@pytest.mark.parametrize("kind", ALL_KINDS, ids=repr)
@settings(max_examples=50)
@given(value=VALUES)
def test_any_value(kind: Kind[object], value: object) -> None:
    """Whatever a file holds is either refused in words or taken; what was taken is taken again unchanged."""
    taken = attempt(kind, value)
    if not isinstance(taken, ValueError):
        assert kind.parse(taken) == taken


@pytest.mark.parametrize("kind", ALL_KINDS, ids=repr)
@given(text=st.text(max_size=50) | st.from_regex(r"\A-?[0-9_]{1,30}(ms|s)?\Z"))
def test_any_text(kind: Kind[object], text: str) -> None:
    """Whatever a variable holds never does more than to be refused."""
    attempt(kind, kind.from_text(text))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (5, 5.0),
        (0.05, 0.05),
        ("5", 5.0),
        ("5s", 5.0),
        ("500ms", 0.5),
        ("700ms", 0.7),
        ("2m", 120.0),
        ("1h", 3600.0),
        (" 1.5 s ", 1.5),
    ],
)
def test_duration_with_and_without_unit(written: object, seconds: float) -> None:
    """A duration is a number of seconds, or text with a unit, and comes out to the digit."""
    assert Seconds(0.05, 3600).parse(written) == seconds


@pytest.mark.parametrize(
    "written", [0, 0.049, 3601, -5, True, "5 parsecs", "s", "", "1e3", "nan", float("nan"), 10**400]
)
def test_duration_that_is_none_or_out_of_range(written: object) -> None:
    """The refusal names both bounds and shows the forms."""
    with pytest.raises(ValueError, match=r"^expected 0\.05 to 3600 seconds; as 5, '500ms', '5s' or '2m'$"):
        Seconds(0.05, 3600).parse(written)


def test_zero_where_it_has_a_meaning() -> None:
    """Zero below the minimum is taken where the setting says what it means, and the refusal of others says so."""
    kind = Seconds(1, 86_400, zero_means="never")
    assert kind.parse(0) == 0.0
    with pytest.raises(ValueError, match="or 0: never"):
        kind.parse(0.5)


@pytest.mark.parametrize("value", [0, 17, True, 5.0, "5", None])
def test_count_of_wrong_type_or_range(value: object) -> None:
    """In TOML a count is an integer; neither text nor true is one."""
    with pytest.raises(ValueError, match=r"^expected a whole number from 1 to 16$"):
        Count(1, 16).parse(value)


@pytest.mark.parametrize(("text", "number"), [("16", 16), (" 7 ", 7), ("7\x1f", 7), ("1_0", 10)])
def test_count_as_text(text: str, number: int) -> None:
    """A variable or flag may hold digits, grouped as in TOML."""
    kind = Count(1, 16)
    assert kind.parse(kind.from_text(text)) == number


@pytest.mark.parametrize("text", ["1__0", "1_", "_1", "0x10", "ten", "9" * 5000, "\N{ARABIC-INDIC DIGIT ONE}", "1.0"])
def test_count_as_text_that_is_no_number(text: str) -> None:
    """Anything but plain digits is refused, however long it is."""
    kind = Count(1, 16)
    with pytest.raises(ValueError, match="whole number"):
        kind.parse(kind.from_text(text))


@pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("1", True), ("off", False), ("0", False)])
def test_switch_as_text(text: str, value: bool) -> None:
    """A variable may say yes in the usual ways."""
    kind = Switch()
    assert kind.parse(kind.from_text(text)) is value


def test_choice_with_a_slip() -> None:
    """The refusal lists the words and names the one that was meant."""
    with pytest.raises(ValueError, match=r"^expected ingress or egress or both; did you mean egress\?$"):
        Choice(("ingress", "egress", "both")).parse("egres")


def test_choice_in_capitals() -> None:
    """Capitals do not matter."""
    assert Choice(("debug", "info")).parse("INFO") == "info"


def test_the_same_value_twice() -> None:
    """A repeated value is a mistake: an exporter given twice would print everything twice."""
    with pytest.raises(ValueError, match=r"^stdout is given twice$"):
        Several(ExporterUrl(), 8).parse(["stdout", "grpc://a:1", "stdout"])


def test_more_values_than_the_limit() -> None:
    """A list is bounded, and the refusal says by what."""
    with pytest.raises(ValueError, match=r"^expected at most 2 values, got 3$"):
        Several(InterfacePattern(), 2).parse(["a", "b", "c"])


def test_list_from_a_variable() -> None:
    """A variable holds several values with spaces between, so that commas may stand in a URL or an expression."""
    kind = Several(ExporterUrl(), 8)
    assert kind.parse(kind.from_text("stdout  grpc://a:1,b:2")) == ("stdout", "grpc://a:1,b:2")


@pytest.mark.parametrize("pattern", ["eth0", "/eth.*/", "br-0a1b2c3d4e5f", "wlp2s0.100", "/(veth|cali).{1,8}/", "ü0"])
def test_interface_pattern(pattern: str) -> None:
    """Names that the kernel allows, and expressions between slashes, are kept as written."""
    assert InterfacePattern().parse(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("/eth(/", r"missing \), unterminated subpattern at character 4 of the expression"),
        ("/*/", "nothing to repeat at character 1 of the expression"),
        ("/[[a]/", "Possible nested set"),
        ("/a{99999999999}/", "is no regular expression"),
        ("/" + "(" * 5000 + "/", "is no regular expression"),
        ("//", "between two slashes"),
        ("/eth", "between two slashes"),
        ("eth0,eth1", "not separated by commas"),
        ("eth/0", "no interface name"),
        ("eth 0", "no interface name"),
        ("eth0:1", "no interface name"),
        ("", "no interface name"),
        ("..", "no interface name"),
        ("abcdefghijklmnop", "longer than the 15 bytes"),
        ("üüüüüüüü", "longer than the 15 bytes"),
        (7, "expected a name such as eth0"),
    ],
)
def test_interface_pattern_that_is_none(pattern: object, complaint: str) -> None:
    """Each refusal says what is wrong, an expression's where."""
    with pytest.raises(ValueError, match=complaint):
        InterfacePattern().parse(pattern)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:9090", "127.0.0.1:9090"),
        (":9090", "127.0.0.1:9090"),
        ("9090", "127.0.0.1:9090"),
        (9090, "127.0.0.1:9090"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::1]:9090", "[::1]:9090"),
        ("localhost:80", "localhost:80"),
    ],
)
def test_listening_address(written: object, address: str) -> None:
    """A host that is left out is loopback."""
    assert ListenAddress().parse(written) == address


@pytest.mark.parametrize(
    "written",
    ["", ":", "host", "host:", "host:http", "::1:9090", "h:65536", "h:-1", "[h]:1", "a b:1", "h/p:1", True, None],
)
def test_listening_address_that_is_none(written: object) -> None:
    """Whatever else is refused."""
    with pytest.raises(ValueError, match=r"expected HOST:PORT|in brackets"):
        ListenAddress().parse(written)


@pytest.mark.parametrize(
    "url", ["stdout", "grpc://collector:2055", "grpcs://a.example:1,b.example:2", "grpc://[::1]:1"]
)
def test_exporter_url(url: str) -> None:
    """The exporters that there are."""
    assert ExporterUrl().parse(url) == url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("grcp://a:1", r"did you mean grpc\?"),
        ("http://a:1", "expected stdout, grpc://HOST:PORT or grpcs://HOST:PORT"),
        ("stdot", r"did you mean stdout\?"),
        ("collector:2055", "expected stdout, grpc://HOST:PORT"),
        ("stdout://x", "expected stdout, grpc://HOST:PORT"),
        ("", "expected stdout"),
        (5, "expected stdout"),
        ("grpc://", "HOST:PORT"),
        ("grpc://host", "HOST:PORT"),
        ("grpc://host:0", "port"),
        ("grpc://host:65536", "port"),
        ("grpc://host:port", "port"),
        ("grpc://a:1,", "HOST:PORT"),
        ("grpc://::1:5", "brackets"),
        ("grpc://user@host:1", "host"),
        ("grpc://host:1/path", "port"),
    ],
)
def test_exporter_url_that_is_none(url: object, complaint: str) -> None:
    """Each refusal says what is wrong with it."""
    with pytest.raises(ValueError, match=complaint):
        ExporterUrl().parse(url)


def test_paths() -> None:
    """A path is any text that can be one."""
    assert FilePath().parse("/etc/netwatch/ca.pem") == Path("/etc/netwatch/ca.pem")
    for value in ("", "a\0b", 5, None):
        with pytest.raises(ValueError, match=r"^expected a path$"):
            FilePath().parse(value)


def test_addresses_in_their_shortest_form() -> None:
    """Two ways to write an address are one address."""
    assert IpAddress().parse("2001:DB8:0::1") == "2001:db8::1"
    with pytest.raises(ValueError, match="expected an IPv4 or IPv6 address"):
        IpAddress().parse("10.0.0.256")
