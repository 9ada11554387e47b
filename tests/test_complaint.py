"""What the operator reads when something goes wrong."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from netwatch.complaint import complain, report
from netwatch.errors import ConfigError, InterfaceMissing, OutputClosed, PermissionMissing

MISSING = PermissionMissing("CAP_BPF", "run as root")


def stumble(message: str) -> None:
    raise ZeroDivisionError(message)


def test_error_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and the error's own exit code."""
    assert report(MISSING) == 3
    assert capsys.readouterr().err == "netwatch: error: missing CAP_BPF: run as root\n"


def test_error_inside_nested_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """What trio's nurseries wrapped, however deep, reads as if it had come alone."""
    assert report(ExceptionGroup("nursery", [ExceptionGroup("nursery", [MISSING])])) == 3
    assert capsys.readouterr().err == "netwatch: error: missing CAP_BPF: run as root\n"


def test_several_errors_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Each gets its line; the first decides the exit code."""
    group = ExceptionGroup("nursery", [InterfaceMissing("eth7", ("lo",)), MISSING])
    assert report(group) == 5
    assert capsys.readouterr().err.count("netwatch: error: ") == 2


def test_interrupt_beside_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C that a nursery wrapped is still Ctrl-C."""
    assert report(BaseExceptionGroup("nursery", [KeyboardInterrupt()])) == 130
    assert capsys.readouterr().err == ""


def test_end_that_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """An end that is nobody's mistake is told, and not called an error."""
    assert report(OutputClosed("stdout", "Broken pipe")) == 0
    assert capsys.readouterr().err.startswith("netwatch: info: stdout: Broken pipe")
    assert report(ExceptionGroup("nursery", [OutputClosed("stdout", "Broken pipe"), MISSING])) == 3


def test_error_of_nobody(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is one line too; the traceback, with all that led to it, is in the file that the line names."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError) as caught:
        stumble("one\ntwo \udcff")
    assert report(ExceptionGroup("nursery", [MISSING, caught.value])) == 70
    line = capsys.readouterr().err
    beginning = (
        "netwatch: internal error: ZeroDivisionError: one\\ntwo \\udcff; please report it with the traceback in "
    )
    match = re.fullmatch(re.escape(beginning) + r"(\S+)\n", line)
    assert match
    file = Path(match[1])
    assert file.parent == tmp_path
    assert file.stat().st_mode & 0o077 == 0
    content = file.read_text()
    assert "in stumble" in content
    assert "missing CAP_BPF" in content


def test_bug_and_no_room_for_its_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a place for the file the line still comes, and says so."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert report(ZeroDivisionError("x")) == 70
    assert "a file that could not be written (No such file or directory)" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a\nb", "a\r\x1b[2Jb", "a\u2028b", "a\udcffb"])
def test_message_with_control_characters(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever was typed cannot break the line or move the cursor."""
    complain(text)
    out = capsys.readouterr().err
    assert len(out.splitlines()) == 1
    assert out.rstrip("\n").isprintable()


def test_very_long_value(capsys: pytest.CaptureFixture[str]) -> None:
    """A long value is shortened in the middle: its beginning and the remedy stay."""
    report(ConfigError("ledger", "x" * 10_000, "expected a path", "--ledger"))
    line = capsys.readouterr().err
    assert len(line) < 1100
    assert line.startswith("netwatch: error: --ledger: ledger = 'xxx")
    assert line.endswith("xxx': expected a path\n")
