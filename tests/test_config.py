"""What settings mean together, and what every setting has to have."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from netwatch.config import SETTINGS, Config
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE
from netwatch.errors import ConfigError
from netwatch.settings.setting import Setting


def test_defaults() -> None:
    """The defaults are valid, and are what the documentation derives its arithmetic from."""
    config = Config()
    assert config.exporters == ("stdout",)
    assert config.max_flows / config.active_timeout_s == pytest.approx(26_000, rel=0.01)
    flows_queued = config.max_queue_bytes / (FLOW_KEY.itemsize + FLOW_VALUE.itemsize)
    assert flows_queued == pytest.approx(466_000, rel=0.01)
    assert flows_queued / 26_000 == pytest.approx(18, abs=0.5)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_default_is_valid(setting: Setting) -> None:
    """A default is what its own kind would have made of it, type included."""
    parsed = setting.kind.parse(setting.default)
    assert (parsed, type(parsed)) == (setting.default, type(setting.default))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_default_has_a_reason(setting: Setting) -> None:
    """Every setting says what it does and why its default is what it is."""
    assert setting.summary
    assert setting.why


def test_every_limit_says_what_happens() -> None:
    """Law 2: a limit has a documented behaviour when full."""
    for setting in SETTINGS:
        if setting.name.startswith("max_"):
            assert ";" in setting.limits, setting.name


def test_config_is_a_value() -> None:
    """Tasks share it, so nobody changes it."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().sampling = 2  # type: ignore[misc]


def test_wrong_value_in_code() -> None:
    """A Config made by hand is checked like one that was read."""
    with pytest.raises(ConfigError, match=r"^sampling = 0: expected a whole number from 1 to 4294967295$"):
        Config(sampling=0)


def test_value_in_another_form() -> None:
    """A value that the kind would have changed is refused, so that there is one form of each."""
    with pytest.raises(ConfigError, match=r"^metrics_listen = '9090': expected '127.0.0.1:9090'$"):
        Config(metrics_listen="9090")


def test_certificate_without_key() -> None:
    """Mutual TLS needs both."""
    with pytest.raises(ConfigError, match=r"^cert = '/c.pem': key is missing"):
        Config(cert=Path("/c.pem"))
    with pytest.raises(ConfigError, match=r"^key = '/k.pem': cert is missing"):
        Config(key=Path("/k.pem"))


def test_plaintext_where_tls_is_required() -> None:
    """An exporter that would send in plain text is refused when asked to."""
    with pytest.raises(ConfigError, match=r"grpc://b:2'.*use grpcs://"):
        Config(require_tls=True, exporters=("grpcs://a:1", "grpc://b:2"))
    assert Config(require_tls=True, exporters=("grpcs://a:1", "stdout")).require_tls


def test_files_for_tls_without_tls() -> None:
    """Whoever names certificates expects TLS: plain text is refused, unless TLS is spoken to another collector."""
    with pytest.raises(ConfigError, match=r"^exporters = 'grpc://a:1': ca is set; use grpcs:// for TLS$"):
        Config(ca=Path("/ca.pem"), exporters=("grpc://a:1",))
    with pytest.raises(ConfigError, match="cert is set"):
        Config(cert=Path("/c.pem"), key=Path("/k.pem"), exporters=("stdout", "grpc://a:1"))
    assert Config(ca=Path("/ca.pem"), exporters=("grpc://a:1", "grpcs://b:2")).ca
    assert Config(ca=Path("/ca.pem")).ca


def test_limits_that_exclude_each_other() -> None:
    """A pause cannot begin above its maximum, nor can a message be larger than the queue."""
    with pytest.raises(ConfigError, match=r"^backoff_min_s = 60.0: above backoff_max_s = 30.0$"):
        Config(backoff_min_s=60.0)
    with pytest.raises(ConfigError, match=r"^max_message_bytes = 3900000: above max_queue_bytes = 100000$"):
        Config(max_queue_bytes=100_000)
