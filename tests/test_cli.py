"""The command line, as a user sees it: lines, streams and exit codes."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from netwatch import __version__
from netwatch.cli import main
from netwatch.config import SETTINGS, Config
from netwatch.errors import ConfigError, InterfaceMissing, PermissionMissing
from netwatch.kernel.program import ProgramSettings
from netwatch.settings.text import exit_codes

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("NETWATCH_"):
            monkeypatch.delenv(variable)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("netwatch")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def put_module(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Callable[..., object]) -> None:
    """Put other functions in the place of those that would start the real thing."""
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


def put_agent(monkeypatch: pytest.MonkeyPatch, run: Callable[[Config, ProgramSettings], int]) -> None:
    """Put another agent in the place of the real one; for it a compilation is what it was asked to compile."""
    put_module(monkeypatch, "netwatch.agent", run=run)
    monkeypatch.setattr("netwatch.kernel.program.start_compiling", lambda settings: settings)
    monkeypatch.setattr("netwatch.kernel.requirement.require_kernel", lambda: None)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Return the configurations with which the agent was started."""
    configs: list[Config] = []

    def run(config: Config, compilation: ProgramSettings) -> int:
        assert (compilation.max_flows, compilation.sampling) == (config.max_flows, config.sampling)
        assert (compilation.enrich, compilation.dns_ports) == (config.enrich, config.dns_ports)
        configs.append(config)
        return 0

    put_agent(monkeypatch, run)
    return configs


def raise_(error: BaseException) -> Callable[..., int]:
    def run(*_: object) -> int:
        raise error

    return run


def test_version(cli: Cli) -> None:
    """The version, and nothing else."""
    assert cli("--version") == (0, f"netwatch {__version__}\n", "")


def test_no_command(cli: Cli) -> None:
    """Without a command the help is shown, as for a mistake."""
    code, out, err = cli()
    assert (code, out) == (2, "")
    assert "run" in err
    assert "collect" in err
    assert "check" in err


@pytest.mark.parametrize("command", [(), ("run",), ("collect",), ("check",)])
def test_help(command: tuple[str, ...], cli: Cli) -> None:
    """Every command explains itself on stdout."""
    code, out, err = cli(*command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(" ".join(("usage: netwatch", *command)))


def test_help_of_run_is_complete(cli: Cli) -> None:
    """It lists every flag and every exit code."""
    _, out, _ = cli("run", "--help")
    for setting in SETTINGS:
        for flag in setting.flags:
            assert flag in out
    for code, meaning in exit_codes():
        assert f"{code:>3}  {meaning}".replace("`", "") in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["rnu"], "invalid choice: 'rnu'"),
        (["run", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["run", "--active"], "unrecognized arguments: --active"),
        (["run", "--sampling"], "argument --sampling: expected one argument"),
        (["run", "eth0"], "unrecognized arguments: eth0"),
        (["run", "\n"], "unrecognized arguments: \\n"),
        (["collect", "--format", "xml"], "invalid choice: 'xml'"),
        (["check", "-v"], "unrecognized arguments: -v"),
    ],
)
def test_mistyped_command_line(arguments: list[str], complaint: str, cli: Cli) -> None:
    """One line with the way to the help, and exit code 2."""
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("netwatch: error: ")
    assert complaint in err
    assert err.endswith(" --help\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--active-timeout", "0"], ["--active-timeout", "'0'", "0.05 to 3600 seconds"]),
        (["--active-timeout", "soon"], ["'soon'", "'500ms'"]),
        (["--duration", "-1"], ["--duration", "'-1'"]),
        (["--max-flows", "many"], ["--max-flows", "'many'", "whole number"]),
        (["--sampling", "0"], ["--sampling", "0", "from 1"]),
        (["--direction", "egres"], ["--direction", "did you mean egress?"]),
        (["--format", "xml"], ["--format", "table or wide or json"]),
        (["--log-level", "loud"], ["--log-level", "debug or info"]),
        (["--attach", "xdp"], ["--attach", "auto or tcx or tc"]),
        (["--gso", "both"], ["--gso", "wire or skb"]),
        (["--grace", "forever"], ["--grace", "do not wait"]),
        (["-i", "/eth(/"], ["--interface", "/eth(/", "character 4"]),
        (["-i", "a,b"], ["--interface", "not separated by commas"]),
        (["--exclude-interface", "//"], ["--exclude-interface", "slashes"]),
        (["-x", "grcp://h:1"], ["--exporter", "grcp://h:1", "did you mean grpc?"]),
        (["-x", "grpc://h"], ["--exporter", "grpc://h", "HOST:PORT"]),
        (["-x", "grpc://h:99999"], ["--exporter", "grpc://h:99999", "port"]),
        (["-x", "stdout", "-x", "stdout"], ["--exporter", "stdout is given twice"]),
        (["--metrics-listen", "host"], ["--metrics-listen", "'host'", "HOST:PORT"]),
        (["--metrics-listen", ":70000"], ["--metrics-listen", "':70000'", "65535"]),
        (["--ledger", ""], ["--ledger", "expected a path"]),
        (
            ["--ledger", "/no/such/directory/ledger.json"],
            ["--ledger", "/no/such/directory", "No such file or directory"],
        ),
        (["--ledger", "/"], ["--ledger", "'/'", "Is a directory"]),
        (["--ledger", "/proc/ledger.json"], ["--ledger", "'/proc/ledger.json'", "cannot be written"]),
        (["-c", "/no/such/file.toml"], ["-c", "/no/such/file.toml", "No such file"]),
    ],
)
def test_bad_flag(arguments: list[str], named: list[str], cli: Cli, started: list[Config]) -> None:
    """One line names the flag, the value and what was expected; exit code 2; nothing was started."""
    code, out, err = cli("run", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("netwatch: error: ")
    assert err.count("\n") == 1
    for text in named:
        assert text in err
    assert not started


def test_bad_file(cli: Cli, started: list[Config], tmp_path: Path) -> None:
    """A mistake in the file is named with the file."""
    file = tmp_path / "netwatch.toml"
    file.write_text("active_timeout = 5\n")
    expected = f"netwatch: error: {file}: active_timeout = 5: no such setting; did you mean active_timeout_s?\n"
    assert cli("run", "-c", str(file)) == (2, "", expected)
    assert not started


def test_bad_variable(cli: Cli, started: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the environment is named with the variable."""
    monkeypatch.setenv("NETWATCH_MAX_FLOWS", "x")
    code, _, err = cli("run")
    assert code == 2
    assert err.startswith("netwatch: error: NETWATCH_MAX_FLOWS: max_flows = 'x': ")
    assert not started


def test_print_config(cli: Cli, started: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merged settings come out as TOML with their sources, can be read back, and nothing starts."""
    file = tmp_path / "netwatch.toml"
    file.write_text('sampling = 10\nmax_flows = 5000\nactive_timeout_s = "1s"\n')
    monkeypatch.setenv("NETWATCH_MAX_FLOWS", "6000")
    code, out, err = cli(
        "run", "-c", str(file), "--active-timeout", "500ms", "-i", "eth0", "-i", "/v.*/", "--print-config"
    )
    assert (code, err) == (0, "")
    table = tomllib.loads(out)
    assert (table["sampling"], table["max_flows"], table["active_timeout_s"]) == (10, 6000, 0.5)
    assert table["interfaces"] == ["eth0", "/v.*/"]
    assert f"sampling = 10  # {file}\n" in out
    assert "max_flows = 6000  # NETWATCH_MAX_FLOWS\n" in out
    assert "active_timeout_s = 0.5  # --active-timeout\n" in out

    monkeypatch.delenv("NETWATCH_MAX_FLOWS")
    file.write_text(out)
    _, again, _ = cli("run", "-c", str(file), "--print-config")
    assert tomllib.loads(again) == table
    assert not started


def test_run(cli: Cli, started: list[Config], tmp_path: Path) -> None:
    """All flags reach the agent, and its exit code is the command's."""
    code, out, err = cli(
        *("run", "-i", "eth0", "--exclude-interface", "/v.*/", "-x", "stdout", "-x", "grpc://c:2055"),
        *(
            "--active-timeout",
            "1",
            "--max-flows",
            "1000",
            "--sampling",
            "2",
            "--direction",
            "egress",
            "--duration",
            "1m",
        ),
        *("--format", "json", "--ledger", str(tmp_path / "l.json"), "--metrics-listen", "9090", "--log-level", "debug"),
        *("--grace", "3", "--attach", "tc", "--gso", "skb"),
    )
    assert (code, out, err) == (0, "", "")
    assert started == [
        Config(
            interfaces=("eth0",),
            exclude_interfaces=("/v.*/",),
            exporters=("stdout", "grpc://c:2055"),
            active_timeout_s=1.0,
            max_flows=1000,
            sampling=2,
            direction="egress",
            duration_s=60.0,
            format="json",
            ledger=tmp_path / "l.json",
            metrics_listen="127.0.0.1:9090",
            log_level="debug",
            grace_s=3.0,
            attach="tc",
            gso="skb",
        )
    ]


def test_run_leaves_an_older_ledger_alone(cli: Cli, started: list[Config], tmp_path: Path) -> None:
    """Making sure that the ledger can be written neither makes a file nor empties one."""
    older, newer = tmp_path / "older.json", tmp_path / "newer.json"
    older.write_text("{}")
    for file in (older, newer):
        assert cli("run", "--ledger", str(file))[0] == 0
    assert (older.read_text(), newer.exists()) == ("{}", False)


def test_run_without_rights(cli: Cli, started: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel would refuse is said before anything is compiled."""
    monkeypatch.setattr(
        "netwatch.kernel.requirement.require_kernel", raise_(PermissionMissing("CAP_BPF", "run as root"))
    )
    assert cli("run") == (3, "", "netwatch: error: missing CAP_BPF: run as root\n")
    assert not started


def test_error_in_the_agent(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agent's nursery raises becomes one line and the error's exit code."""
    error = ExceptionGroup("nursery", [InterfaceMissing("eth7", ("eth0", "lo"))])
    put_agent(monkeypatch, raise_(error))
    expected = "netwatch: error: interface 'eth7': nothing matches; present: eth0, lo\n"
    assert cli("run", "-i", "eth7") == (5, "", expected)


def test_bug_in_the_agent(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bug is one line with the file of its traceback, and exit code 70."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    put_agent(monkeypatch, raise_(RuntimeError("no")))
    code, out, err = cli("run")
    assert (code, out) == (70, "")
    assert err.startswith("netwatch: internal error: RuntimeError: no; please report it with the traceback in ")
    assert err.count("\n") == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_interrupted_before_the_agent_handles_signals(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while it starts is no error and needs no words."""
    put_agent(monkeypatch, raise_(KeyboardInterrupt()))
    assert cli("run") == (130, "", "")


def test_collect(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector gets its address in full and the format."""
    calls: list[tuple[str, str | None]] = []

    def run(listen: str, output_format: str | None) -> int:
        calls.append((listen, output_format))
        return 0

    put_module(monkeypatch, "netwatch.collect", run=run)
    assert cli("collect") == (0, "", "")
    assert cli("collect", "--listen", ":4000", "--format", "json") == (0, "", "")
    assert calls == [("127.0.0.1:2055", None), ("127.0.0.1:4000", "json")]


def test_collect_at_a_bad_address(cli: Cli) -> None:
    """The flag, the value and what was expected."""
    code, out, err = cli("collect", "--listen", "here")
    assert (code, out) == (2, "")
    assert err.startswith("netwatch: error: --listen: listen = 'here': expected HOST:PORT")


def test_check(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the check found is printed, and its verdict is the exit code."""
    put_module(monkeypatch, "netwatch.check", run=lambda: ("FAIL x: y\n", 1))
    assert cli("check") == (1, "FAIL x: y\n", "")


def test_log_lines(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records go to stderr in the form of the command's other lines: ours from the level on, libraries' warnings."""

    def run(config: Config, compilation: ProgramSettings) -> int:
        for name in ("netwatch.poll", "hpack"):
            logging.getLogger(name).info("info of %s", name)
            logging.getLogger(name).warning("warning of %s", name)
        return 0

    put_agent(monkeypatch, run)
    everything = "netwatch: info: info of netwatch.poll\n"
    warnings = "netwatch: warning: warning of netwatch.poll\nnetwatch: warning: warning of hpack\n"
    assert cli("run") == (0, "", everything + warnings)
    assert cli("run", "--log-level", "warning") == (0, "", warnings)
    _, _, err = cli("run", "--log-level", "debug")
    assert " netwatch.poll: info of netwatch.poll\n" in err


NETWATCH = [sys.executable, "-m", "netwatch"]


def run_process(*arguments: str, stdout: int | None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*NETWATCH, *arguments], stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60)


@pytest.mark.parametrize("arguments", [("--version",), ("run", "--help"), ("run", "--print-config")])
def test_reader_that_has_gone(arguments: tuple[str, ...]) -> None:
    """`netwatch ... | true` ends without a word, with the code that a shell gives to SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_process(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_disk_that_is_full() -> None:
    """Settings that could not be printed are not reported as printed."""
    with Path("/dev/full").open("wb") as full:
        done = run_process("run", "--print-config", stdout=full.fileno())
    reason = os.strerror(errno.ENOSPC)
    assert (done.returncode, done.stderr.decode()) == (
        74,
        f"netwatch: error: standard output cannot be written: {reason}\n",
    )


def test_started_without_standard_streams() -> None:
    """Descriptors that are closed from the start are replaced, each by its own number."""
    script = (
        "import os, sys; from netwatch.cli import main; code = main(['run', '--print-config']);"
        "sys.exit(code or sum(os.readlink(f'/proc/self/fd/{fd}') != os.devnull for fd in (0, 1, 2)))"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script], check=False, timeout=60
    )
    assert done.returncode == 0


def test_command_is_installed() -> None:
    """The console script and `python -m netwatch` are the same thing."""
    script = Path(sys.executable).with_name("netwatch")
    for command in ([str(script)], NETWATCH):
        done = subprocess.run(
            [*command, "run", "-x", "ftp://h"], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stdout) == (ConfigError.exit_code, "")
        assert done.stderr.startswith("netwatch: error: --exporter: ")
