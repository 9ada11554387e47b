"""Settings as TOML, and the tables of the README."""

from __future__ import annotations

import argparse
import re
import string
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.config import SETTINGS, Config, Enrichment
from netwatch.errors import DeliveryFailed, NetwatchError, OutputClosed
from netwatch.settings.sources import Loaded, load
from netwatch.settings.text import as_toml, exit_code_table, exit_codes, settings_table

README = Path(__file__).parents[2] / "README.md"

SECONDS = st.floats(0.05, 3600)
NAMES = st.text(string.ascii_lowercase + string.digits + "-_.", min_size=1, max_size=15).filter(lambda n: n.strip("."))
REGEXES = st.sampled_from(["/veth.*/", r"/eth\d+/", '/"|\t|ü/', "/\N{GRINNING FACE}?/", "/\x7f/"])
PATTERNS = st.lists(NAMES | REGEXES, max_size=5, unique=True).map(tuple)
PORTS = st.integers(1, 65535)
URLS = st.just("stdout") | st.builds("{}://{}:{}".format, st.sampled_from(["grpc", "grpcs"]), NAMES, PORTS)
PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30).map(Path)

FREE = {
    "interfaces": PATTERNS,
    "exclude_interfaces": PATTERNS,
    "exporters": st.lists(URLS, max_size=8, unique=True).map(tuple),
    "active_timeout_s": SECONDS,
    "max_flows": st.integers(1, 1 << 24),
    "max_fragments": st.integers(1, 1 << 20),
    "sampling": st.integers(1, (1 << 32) - 1),
    "direction": st.sampled_from(["ingress", "egress", "both"]),
    "duration_s": st.none() | SECONDS,
    "sampling_mode": st.sampled_from(["packet", "flow"]),
    "enrich": st.lists(st.sampled_from(get_args(Enrichment)), unique=True).map(tuple),
    "enrich_namespace": st.sampled_from(["own", "all"]),
    "ring_bytes": st.integers(16, 30).map(lambda power: 1 << power),
    "ring_period_s": st.floats(0.001, 10),
    "join_grace_s": st.just(0.0) | st.floats(0.001, 10),
    "max_pending_events": st.integers(1024, 1 << 26),
    "max_recent_flows": st.integers(0, 1 << 24),
    "drop_window_s": st.just(0.0) | st.floats(0.001, 10),
    "rtt_fraction": st.integers(1, 1024),
    "dns_ports": st.lists(st.integers(1, 65_535), max_size=4, unique=True).map(tuple),
    "dns_timeout_s": st.floats(0.05, 600),
    "max_dns_questions": st.integers(1, 1 << 22),
    "max_translations": st.integers(1, 1 << 24),
    "format": st.sampled_from([None, "table", "wide", "json"]),
    "ledger": st.none() | PATHS,
    "record": st.none() | PATHS,
    "max_record_bytes": st.integers(1 << 20, 1 << 40),
    "metrics_listen": st.none() | st.builds("127.0.0.1:{}".format, PORTS) | st.builds("[::1]:{}".format, PORTS),
    "log_level": st.sampled_from(["debug", "info", "warning", "error"]),
    "attach": st.sampled_from(["auto", "tcx", "tc"]),
    "gso": st.sampled_from(["wire", "skb"]),
    "grace_s": st.just(0.0) | SECONDS,
    "max_queue_bytes": st.integers(1 << 30, 1 << 40),
    "max_message_flows": st.integers(1, 1_000_000),
    "max_message_bytes": st.integers(4096, 1 << 30),
    "deadline_s": SECONDS,
    "backoff_min_s": st.floats(0.001, 1),
    "backoff_max_s": st.floats(1, 3600),
    "reconnect_s": st.just(0.0) | st.floats(1, 86_400),
    "minimal_varints": st.booleans(),
    "agent_ip": st.none() | st.ip_addresses().map(str),
    "bpf_stats": st.booleans(),
}
DEPENDENT = {"ca", "cert", "key", "require_tls"}


@st.composite
def configs(draw: st.DrawFn) -> Config:
    values = {name: draw(strategy) for name, strategy in FREE.items()}
    if not any(url.startswith("grpc://") for url in values["exporters"]):
        values["ca"], values["require_tls"] = draw(st.none() | PATHS), draw(st.booleans())
        values["cert"], values["key"] = draw(st.just((None, None)) | st.tuples(PATHS, PATHS))
    return Config(**values)


def test_every_setting_is_drawn() -> None:
    """A new setting has to join the property below."""
    assert set(FREE) | DEPENDENT == {setting.name for setting in SETTINGS}


@given(config=configs())
def test_printed_and_read_back(config: Config) -> None:
    """What --print-config prints is TOML that gives the same settings."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(as_toml(Loaded(config, {"sampling": "a\nb\x7f\N{GRINNING FACE}"})).encode())
        file.flush()
        assert load(argparse.Namespace(), {}, Path(file.name)).config == config


def test_settings_that_are_not_set() -> None:
    """TOML has no word for nothing: what is not set is a comment, and is not read back."""
    text = as_toml(Loaded(Config(), {}))
    assert "# ledger: not set\n" in text
    assert set(tomllib.loads(text)) == {name for name, value in attrs.asdict(Config()).items() if value is not None}


def test_source_is_shown() -> None:
    """A value that is no default says where it comes from."""
    text = as_toml(Loaded(Config(sampling=7), {"sampling": "NETWATCH_SAMPLING"}))
    assert "sampling = 7  # NETWATCH_SAMPLING\n" in text
    assert "max_flows = 131072\n" in text


def test_each_setting_has_its_row() -> None:
    """The table has a row for each setting, six cells wide, with every name that sets it."""
    head, rule, *rows = settings_table().splitlines()
    assert [len(re.split(r"(?<!\\)\|", row)) for row in (head, rule, *rows)] == [8] * (len(SETTINGS) + 2)
    for setting, row in zip(SETTINGS, rows, strict=True):
        for name in (setting.name, setting.variable, *setting.flags):
            assert f"`{name}`" in row


def test_every_exit_code_is_explained_once() -> None:
    """Each error that can make a run fail has a code of its own, with a meaning."""
    errors = [error for error in NetwatchError.__subclasses__() if error not in (DeliveryFailed, OutputClosed)]
    codes = exit_codes()
    assert len({code for code, _ in codes}) == len(codes)
    assert {error.exit_code for error in errors} < {code for code, _ in codes}
    assert len({error.exit_code for error in errors}) == len(errors)
    assert all(text.endswith(".") and len(text) > 4 for _, text in codes)


@pytest.mark.parametrize(("marker", "render"), [("settings", settings_table), ("exit-codes", exit_code_table)])
def test_readme_has_the_table(marker: str, render: Callable[[], str]) -> None:
    """The README's tables are those of the code: `python -m netwatch.settings.text` prints what belongs there."""
    found = re.findall(f"<!-- {marker} -->\n(.*?)\n<!-- /{marker} -->", README.read_text(), re.DOTALL)
    assert found == [render()]
