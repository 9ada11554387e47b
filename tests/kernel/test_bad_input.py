"""What the daemon makes of mistakes: one line on stderr that names thing, value and remedy, and an exit code for each.

Neighbours: `tests/test_cli.py` has the mistakes that are found before anything starts.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netwatch.kernel.source import source_directory
from tests.kernel.command import Finished, netwatch
from tests.kernel.hosts import Namespace
from tests.kernel.leftovers import programs, programs_left

ROOT = Path(__file__).parents[2]
ENTRY_POINT = "int netwatch(struct __sk_buff *skb)\n{\n"


@pytest.fixture
def host(namespaces: Callable[[], Namespace]) -> Namespace:
    """Return a host with nothing but loopback."""
    return namespaces()


@pytest.fixture
def taken(host: Namespace) -> Iterator[str]:
    """Return an address where somebody listens already."""
    with host.enter():
        listener = socket.create_server(("127.0.0.1", 9464))
    with listener:
        yield "127.0.0.1:9464"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a directory with a copy of netwatch, to be run there: `copy/netwatch/bpf` has the programs."""
    shutil.copytree(ROOT / "netwatch", tmp_path / "netwatch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source_directory(), tmp_path / "netwatch/bpf", dirs_exist_ok=True)
    return tmp_path


def run_copy(host: Namespace, copy: Path, change: str) -> Finished:
    """Run the copy with a line put first in one of its programs."""
    main = copy / "netwatch/bpf/netwatch.bpf.c"
    text = main.read_text()
    assert ENTRY_POINT in text
    main.write_text(text.replace(ENTRY_POINT, ENTRY_POINT + change))
    logs = copy / "logs"
    logs.mkdir()
    variables = {"PYTHONPATH": str(copy), "TMPDIR": str(logs)}
    return netwatch(host, "run", "-i", "lo", "--duration", "1", variables=variables, cwd=copy)


def assert_one_line(finished: Finished, exit_code: int, *said: str) -> str:
    """Assert that it failed with an exit code of its own and one line that says all of this; return the line."""
    assert (finished.exit_code, finished.stdout, len(finished.stderr)) == (exit_code, "", 1), finished
    (line,) = finished.stderr
    assert line.startswith("netwatch: error: ")
    assert [text for text in said if text not in line] == [], line
    return line


def as_nobody(*capabilities: str) -> tuple[str, ...]:
    """Return the command that runs another as a user with these capabilities.

    And with the one to read what others may not: the interpreter may lie in a directory of root's.
    """
    names = ",".join(f"+{name}" for name in (*capabilities, "dac_read_search"))
    user = ("--reuid=65534", "--regid=65534", "--clear-groups")
    return ("setpriv", *user, f"--inh-caps={names}", f"--ambient-caps={names}")


def test_interface_that_is_not_there(host: Namespace) -> None:
    """The name is told, and what there is; nothing stays loaded."""
    before = programs()
    assert_one_line(netwatch(host, "run", "-i", "nope0"), 5, "interface 'nope0'", "present: lo")
    assert programs_left(before) == {}


def test_ordinary_user(host: Namespace) -> None:
    """Not root: what is missing, and what to do."""
    finished = netwatch(host, "run", "-i", "lo", prefix=as_nobody())
    assert_one_line(finished, 3, "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF", "run as root, or grant it")


def test_root_without_a_capability(host: Namespace) -> None:
    """As in most containers: root, but not all-powerful. Only what is missing is named."""
    finished = netwatch(host, "run", "-i", "lo", prefix=("setpriv", "--bounding-set", "-perfmon,-sys_admin"))
    assert "CAP_BPF" not in assert_one_line(finished, 3, "missing CAP_PERFMON", "grant it")


def test_three_capabilities_are_enough(host: Namespace) -> None:
    """Nobody has to be root: the remedy that the other tests read is one."""
    prefix = as_nobody("bpf", "perfmon", "net_admin")
    finished = netwatch(host, "run", "-i", "lo", "--duration", "0.1", prefix=prefix)
    assert finished.exit_code == 0, finished
    assert any(line.endswith(" 0 mismatches") for line in finished.stderr)
    assert finished.stderr[-1] == "  events: balance"


@pytest.mark.parametrize("command", [("run", "-i", "lo", "--metrics-listen"), ("collect", "--listen")])
def test_address_in_use(command: tuple[str, ...], host: Namespace, taken: str) -> None:
    """The setting and the address are named."""
    finished = netwatch(host, *command, taken)
    setting = command[-1] if command[0] == "collect" else "metrics_listen"
    assert_one_line(finished, 9, f"{setting} {taken}", "ddress already in use", "choose another HOST:PORT")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics-listen", "127.0.0.1:65536"], ["--metrics-listen", "'127.0.0.1:65536'", "0 to 65535"]),
        (["-x", "grpc://collector:0"], ["--exporter", "port '0'", "1 to 65535"]),
        (["-x", "grcp://collector:1"], ["--exporter", "'grcp://collector:1'", "grpc"]),
        (["-i", "/(/"], ["--interface", "'/(/'", "unterminated"]),
        (["--duration", "5 parsecs"], ["--duration", "'5 parsecs'", "seconds"]),
    ],
)
def test_setting_that_cannot_be(arguments: list[str], said: list[str], host: Namespace) -> None:
    """The flag, the value and what is expected are named; nothing is compiled for it."""
    assert_one_line(netwatch(host, "run", *arguments), 2, *said)


def test_key_that_does_not_exist(host: Namespace, tmp_path: Path) -> None:
    """The file, the key and the nearest one that exists are named."""
    path = tmp_path / "netwatch.toml"
    path.write_text("max_flow = 1000\n")
    assert_one_line(netwatch(host, "run", "-c", str(path)), 2, str(path), "max_flow = 1000", "did you mean max_flows?")


def test_certificate_that_cannot_be_read(host: Namespace, tmp_path: Path) -> None:
    """The setting and the file are named; the child that was compiling meanwhile leaves nothing."""
    before, path = programs(), tmp_path / "netwatch.toml"
    path.write_text(f'ca = "{tmp_path}/ca.pem"\n')
    finished = netwatch(host, "run", "-i", "lo", "-c", str(path), "-x", "grpcs://localhost:1")
    assert_one_line(finished, 10, f"ca {tmp_path}/ca.pem", "No such file or directory")
    assert programs_left(before) == {}


def test_programs_that_do_not_compile(host: Namespace, copy: Path) -> None:
    """The compiler's first error is told with its place, and where all of them are."""
    finished = run_copy(host, copy, "\tno_such_type x;\n")
    (log,) = (copy / "logs").iterdir()
    assert_one_line(
        finished, 7, "netwatch.bpf.c:", "error: use of undeclared identifier 'no_such_type'", f"full log: {log}"
    )
    assert "1 error generated" in log.read_text()


def test_program_that_the_verifier_refuses(host: Namespace, copy: Path) -> None:
    """The verifier's last sentence is told, and where its whole log is."""
    finished = run_copy(host, copy, "\tif (*(volatile u8 *)(long)skb->data == 69)\n\t\treturn GO_ON;\n")
    (log,) = (copy / "logs").iterdir()
    line = assert_one_line(finished, 7, "R1 offset is outside of the packet", f"full log: {log}", "report it")
    assert len(line) < 500
    assert "processed " in log.read_text()


def test_bcc_that_is_not_installed(host: Namespace, tmp_path: Path) -> None:
    """The package is named as the distribution calls it."""
    (tmp_path / "bcc.py").write_text("raise ImportError(\"No module named 'bcc'\")\n")
    finished = netwatch(host, "run", "-i", "lo", variables={"PYTHONPATH": str(tmp_path)})
    assert_one_line(finished, 8, "bcc is not usable", "No module named 'bcc'", "python3-bpfcc")
