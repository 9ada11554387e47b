"""The merging of file, environment and flags."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path

import pytest

from netwatch.config import SETTINGS, Config
from netwatch.errors import ConfigError
from netwatch.settings.setting import Setting
from netwatch.settings.sources import MAX_FILE_BYTES, Loaded, load

NO_FLAGS = argparse.Namespace()

# For every setting two values: one in TOML that is not the default, and another as a variable or flag has it.
EXAMPLES = {
    "interfaces": ('["eth0", "/veth.*/"]', "eth1"),
    "exclude_interfaces": ('["docker0"]', "/br-.*/"),
    "exporters": ('["grpc://a:1,b:2"]', "grpcs://c:3"),
    "active_timeout_s": ('"500ms"', "2m"),
    "max_flows": ("1_000", "2000"),
    "max_fragments": ("16", "17"),
    "sampling": ("50", "100"),
    "direction": ('"ingress"', "egress"),
    "duration_s": ("10", "1m"),
    "sampling_mode": ('"flow"', "PACKET"),
    "enrich": ('["drops", "dns"]', "tcp rtt"),
    "enrich_namespace": ('"all"', "own"),
    "ring_bytes": ("65536", "131072"),
    "ring_period_s": ("0.2", "50ms"),
    "join_grace_s": ("0", "1s"),
    "max_pending_events": ("1024", "2048"),
    "max_recent_flows": ("0", "1"),
    "drop_window_s": ("0", "1s"),
    "rtt_fraction": ("1", "2"),
    "dns_ports": ("[53, 5353]", "5300"),
    "dns_timeout_s": ("1", "2s"),
    "max_dns_questions": ("1", "2"),
    "max_translations": ("1", "2"),
    "format": ('"json"', "table"),
    "ledger": ('"/tmp/a.json"', "/tmp/b.json"),
    "record": ('"/tmp/a.netwatch"', "/tmp/b.netwatch"),
    "max_record_bytes": ("1_048_576", "2097152"),
    "metrics_listen": ("9090", ":9191"),
    "log_level": ('"debug"', "error"),
    "attach": ('"tcx"', "tc"),
    "gso": ('"skb"', "WIRE"),
    "grace_s": ("0", "3"),
    "max_queue_bytes": ("10_000_000", "20000000"),
    "max_message_flows": ("1", "2"),
    "max_message_bytes": ("4096", "5000"),
    "deadline_s": ("1", "2"),
    "backoff_min_s": ("0.2", "300ms"),
    "backoff_max_s": ("60", "90"),
    "reconnect_s": ("60", "5m"),
    "ca": ('"/a.pem"', "/b.pem"),
    "cert": ('"/a.pem"', "/b.pem"),
    "key": ('"/a.pem"', "/b.pem"),
    "require_tls": ("true", "no"),
    "minimal_varints": ("true", "off"),
    "agent_ip": ('"10.0.0.1"', "::1"),
    "bpf_stats": ("true", "0"),
}
# What else has to be set so that a setting alone is valid.
COMPANIONS = {"cert": 'key = "/k.pem"', "key": 'cert = "/c.pem"'}


def write(path: Path, text: str) -> Path:
    file = path / "netwatch.toml"
    file.write_text(text)
    return file


def refusal(file: Path | None = None, environ: dict[str, str] | None = None, **flags: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(argparse.Namespace(**flags), environ or {}, file)
    return caught.value


def test_examples_are_complete() -> None:
    """Each setting is tried in the tests below."""
    assert set(EXAMPLES) == {setting.name for setting in SETTINGS}


def test_nothing_given() -> None:
    """Without any source the defaults hold, and no source is named."""
    assert load(NO_FLAGS, {"HOME": "/root"}, None) == Loaded(Config(), {})


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_later_source_wins(setting: Setting, tmp_path: Path) -> None:
    """A variable wins over the file, a flag over both; each is recorded as the source."""
    name, variable, flags = setting.name, setting.variable, setting.flags
    in_toml, as_text = EXAMPLES[name]
    file = write(tmp_path, f"{name} = {in_toml}\n{COMPANIONS.get(name, '')}\n")

    from_file = load(NO_FLAGS, {}, file)
    assert from_file.sources[name] == str(file)
    assert getattr(from_file.config, name) != getattr(Config(), name)

    from_environ = load(NO_FLAGS, {variable: as_text}, file)
    assert from_environ.sources[name] == variable

    assert getattr(from_environ.config, name) != getattr(from_file.config, name)

    if flags:
        given = as_text.split() if setting.repeats else as_text
        in_environ = {variable: tomllib.loads(f"x = {in_toml}")["x"]} if in_toml.startswith('"') else {}
        from_flags = load(argparse.Namespace(**{name: given}), in_environ, file)
        assert from_flags.sources[name] == flags[-1]
        assert getattr(from_flags.config, name) == getattr(from_environ.config, name)


def test_lists_replace_each_other(tmp_path: Path) -> None:
    """A flag's list does not add to the file's: what is on the command line is what happens."""
    file = write(tmp_path, 'exporters = ["stdout", "grpc://a:1"]')
    assert load(argparse.Namespace(exporters=["grpc://b:2"]), {}, file).config.exporters == ("grpc://b:2",)


def test_overridden_mistake(tmp_path: Path) -> None:
    """A wrong value in the file is named even where a flag overrides it: the file will be used without the flag."""
    error = refusal(write(tmp_path, "sampling = 0"), sampling="1")
    assert (error.setting, error.value) == ("sampling", 0)


def test_unknown_key(tmp_path: Path) -> None:
    """The nearest key is named, with the file."""
    file = write(tmp_path, "max_flow = 5")
    assert str(refusal(file)) == f"{file}: max_flow = 5: no such setting; did you mean max_flows?"


def test_unknown_key_like_no_other(tmp_path: Path) -> None:
    """Where nothing is near, the message says where all are shown."""
    assert "--print-config" in refusal(write(tmp_path, "zzz = 5")).hint


def test_table_in_the_file(tmp_path: Path) -> None:
    """Settings are not grouped: a table is an unknown key."""
    assert refusal(write(tmp_path, "[run]\nsampling = 1")).setting == "run"


def test_unknown_variable() -> None:
    """The nearest setting is named, where there is a near one."""
    error = refusal(environ={"NETWATCH_SAMPLIN": "5"})
    assert str(error) == "environment: NETWATCH_SAMPLIN = '5': no such setting; did you mean sampling?"
    assert "did you mean" not in refusal(environ={"NETWATCH_FOO": "5"}).hint


@pytest.mark.parametrize(
    "variable",
    [
        "NETWATCH_SERVICE_HOST",
        "NETWATCH_SERVICE_PORT",
        "NETWATCH_SERVICE_PORT_METRICS",
        "NETWATCH_PORT",
        "NETWATCH_PORT_9090_TCP",
        "NETWATCH_PORT_9090_TCP_PROTO",
        "NETWATCH_COLLECTOR_SERVICE_HOST",
        "NETWATCH_COLLECTOR_PORT_2055_TCP_ADDR",
    ],
)
def test_variables_of_kubernetes_services(variable: str) -> None:
    """A service named netwatch, or netwatch-collector, does not keep the pods beside it from starting."""
    assert load(NO_FLAGS, {variable: "tcp://10.0.0.1:9090"}, None).config == Config()


def test_empty_variable(tmp_path: Path) -> None:
    """An empty variable is one that is not set."""
    file = write(tmp_path, "sampling = 7")
    assert load(NO_FLAGS, {"NETWATCH_SAMPLING": "", "NETWATCH_LEDGER": " "}, file).config == Config(sampling=7)


def test_wrong_value_names_its_source(tmp_path: Path) -> None:
    """Each source is named as the operator knows it."""
    file = write(tmp_path, 'sampling = "often"')
    assert str(refusal(file)) == f"{file}: sampling = 'often': expected a whole number from 1 to 4294967295"
    assert str(refusal(environ={"NETWATCH_SAMPLING": "often"})).startswith("NETWATCH_SAMPLING: sampling = 'often': ")
    assert str(refusal(sampling="often")).startswith("--sampling: sampling = 'often': ")


def test_wrong_combination_names_its_source() -> None:
    """What is wrong only together with something else is named with the source of the one that was set."""
    assert refusal(environ={"NETWATCH_CERT": "/c.pem"}).source == "NETWATCH_CERT"


def test_text_that_is_not_utf8() -> None:
    """Bytes of another encoding are refused at once; neither TOML nor a terminal could show them."""
    assert refusal(ledger=os.fsdecode(b"/tmp/\xff")).hint == "expected UTF-8"
    assert refusal(interfaces=[os.fsdecode(b"eth\xff")]).hint == "expected UTF-8"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"sampling = 1\nmax_flows = = 2\n", "at line 2, column"),
        (b"sampling = 1\nsampling = 2\n", "at line 2, column"),
        (b"sampling = 1\nledger = '\xff'\n", "line 2: not UTF-8"),
        (b"a = " + b"[" * 5000, "is no TOML: "),
        (b"sampling = " + b"9" * 5000, "is no TOML: "),
        (b" " * (MAX_FILE_BYTES + 1), "is larger than 1048576 bytes"),
    ],
)
def test_file_that_is_no_toml(content: bytes, complaint: str, tmp_path: Path) -> None:
    """The file and the line are named, and nothing of the file has been used."""
    file = tmp_path / "netwatch.toml"
    file.write_bytes(content)
    error = refusal(file)
    assert (error.setting, error.value, error.source) == ("config file", str(file), "-c")
    assert complaint in error.hint


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """The system's reason is given."""
    assert refusal(tmp_path / "missing.toml").hint == "cannot be read: No such file or directory"
    assert refusal(tmp_path).hint == "cannot be read: Is a directory"
    assert refusal(Path("a\0b")).hint == "cannot be read: embedded null byte"


def test_endless_file() -> None:
    """Not even a file without an end costs more than the limit."""
    assert refusal(Path("/dev/zero")).hint == "is larger than 1048576 bytes"
