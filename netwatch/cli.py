"""The command line: `netwatch run`, `replay`, `collect` and `check`.

Law: whatever goes wrong is one line on stderr and an exit code of its own; stdout carries flows, or what was asked for.
This is the only place that catches every exception.
Neighbours: `sources.py` reads the flags; `agent.py`, `replay.py`, `collect.py` and `check.py` do the work and are
imported when they are needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from netwatch import __version__
from netwatch.complaint import EXIT_INTERRUPTED, complain, report
from netwatch.config import SETTINGS
from netwatch.errors import ConfigError, ProcessorUnsupported
from netwatch.logs import configure_logging
from netwatch.processor import missing_features
from netwatch.settings.addresses import parse_listen
from netwatch.settings.setting import Setting
from netwatch.settings.sources import Loaded, load
from netwatch.settings.text import as_toml, exit_codes, toml_value

if TYPE_CHECKING:
    from netwatch.config import Config
    from netwatch.kernel.program import ProgramSettings

# Those that decide over the way out of a replay.
_REPLAY_SETTINGS = ("exporters", "format", "ledger", "log_level", "grace_s")

EXIT_USAGE, EXIT_OUTPUT, EXIT_PIPE_CLOSED = 2, 74, 141

# The port that flowlogs-pipeline's examples use for its gRPC stage.
DEFAULT_COLLECT_LISTEN = "127.0.0.1:2055"


class _OneLineParser(argparse.ArgumentParser):
    """A parser whose complaint is one line, like every other."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        self.exit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Never raises."""
    _replace_closed_streams()
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_PIPE_CLOSED
    except (Exception, BaseExceptionGroup) as error:
        return report(error)
    return code


def _dispatch(argv: Sequence[str]) -> int:
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as finished:  # --help, --version, or a mistake that has been named
        return finished.code if isinstance(finished.code, int) else 0
    commands = {"run": _run, "replay": _replay, "collect": _collect, "check": _check}
    if arguments.command not in commands:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    # Before anything imports numpy, which an older processor ends with SIGILL and no word.
    if missing := missing_features():
        return _refuse_processor(ProcessorUnsupported(missing), is_check=arguments.command == "check")
    return commands[arguments.command](arguments)


def _refuse_processor(unsupported: ProcessorUnsupported, *, is_check: bool) -> int:
    if is_check:
        return _print(f"FAIL {unsupported}\nnetwatch cannot run here\n", 1)
    raise unsupported


def _run(arguments: argparse.Namespace) -> int:
    loaded = load(arguments, os.environ, arguments.config)
    if arguments.print_config:
        return _print(as_toml(loaded), 0)
    _check_ledger(loaded)
    configure_logging(loaded.config.log_level)
    from netwatch.kernel.program import start_compiling  # noqa: PLC0415 - only this command compiles
    from netwatch.kernel.requirement import require_kernel  # noqa: PLC0415

    require_kernel()
    config = loaded.config
    compilation = start_compiling(_program_settings(config))
    from netwatch.agent import run  # noqa: PLC0415 - numpy and trio take 0.2 s: while the compiler runs

    return run(config, compilation)


def _program_settings(config: Config) -> ProgramSettings:
    from netwatch.kernel.program import ProgramSettings, network_namespace  # noqa: PLC0415

    return ProgramSettings(
        max_flows=config.max_flows,
        max_fragments=config.max_fragments,
        sampling=config.sampling,
        sampling_mode=config.sampling_mode,
        gso=config.gso,
        enrich=config.enrich,
        ring_bytes=config.ring_bytes,
        drop_window_s=config.drop_window_s,
        rtt_fraction=config.rtt_fraction,
        dns_ports=config.dns_ports,
        network_namespace=network_namespace() if config.enrich_namespace == "own" else 0,
    )


def _check(_arguments: argparse.Namespace) -> int:
    from netwatch.check import run  # noqa: PLC0415 - the kernel probes are for this command only

    return _print(*run())


def _replay(arguments: argparse.Namespace) -> int:
    loaded = load(arguments, os.environ, arguments.config)
    _check_ledger(loaded)
    configure_logging(loaded.config.log_level)
    from netwatch.replay import run  # noqa: PLC0415 - numpy and trio are for the commands that work

    return run(arguments.recording, loaded.config)


def _collect(arguments: argparse.Namespace) -> int:
    configure_logging("info")
    try:
        listen = str(parse_listen(arguments.listen))
    except ValueError as error:
        raise ConfigError("listen", arguments.listen, str(error), "--listen") from error
    from netwatch.collect import run  # noqa: PLC0415 - protobuf and grpclib are for this command only

    return run(listen, arguments.format)


def _check_ledger(loaded: Loaded) -> None:
    """Make sure that the ledger can be written: found at the end of the run, a mistake would cost it."""
    path = loaded.config.ledger
    if path is None or path.is_fifo() or path.is_char_device():  # opening these means something to the other end
        return
    is_new = not path.exists()
    try:
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        hint = f"cannot be written: {error.strerror}; name another file"
        raise ConfigError("ledger", str(path), hint, loaded.sources.get("ledger")) from error


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code:>3}  {text}" for code, text in exit_codes()).replace("`", "")
    parser = _OneLineParser(
        prog="netwatch", description="An eBPF network-flow agent that accounts for every packet.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"netwatch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_OneLineParser)
    run = commands.add_parser(
        "run",
        help="watch interfaces and export flows",
        description="Watch interfaces and export flows, until Ctrl-C or SIGTERM; then print the ledger.",
        epilog=f"Every setting can also come from a TOML file (-c) or a NETWATCH_* variable.\n\nexit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument(
        "--print-config", action="store_true", help="print all settings as TOML, with their sources, and end"
    )
    _add_flags(run, [setting.name for setting in SETTINGS])
    replay = commands.add_parser(
        "replay",
        help="export what was recorded",
        description="Send a recording (`netwatch run --record FILE`) through the join and the exporters, without root, "
        "kernel or time: the same records, byte for byte.",
        epilog="What decides over the records comes from the recording, the rest from flags, file and variables.",
        allow_abbrev=False,
    )
    replay.add_argument("recording", metavar="FILE", type=Path, help="the recording; FILE.1 beside it is its beginning")
    _add_flags(replay, _REPLAY_SETTINGS)
    collect = commands.add_parser(
        "collect",
        help="receive flows by gRPC and print them",
        description="Receive flows by gRPC (pbflow) and print them: the other end for a first try and for tests.",
        allow_abbrev=False,
    )
    collect.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=DEFAULT_COLLECT_LISTEN,
        help="a port alone is on loopback (%(default)s)",
    )
    collect.add_argument(
        "--format", choices=("table", "wide", "json"), help="table on a terminal, JSON lines otherwise"
    )
    commands.add_parser(
        "check",
        help="say whether this machine can run netwatch",
        description="Say, line by line and with the remedy, whether this machine can run netwatch. Exit code 0 or 1.",
        allow_abbrev=False,
    )
    return parser


def _add_flags(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    command.add_argument("-c", "--config", metavar="FILE", type=Path, help="TOML file with settings")
    for setting in SETTINGS:
        if setting.flags and setting.name in names:
            command.add_argument(
                *setting.flags,
                dest=setting.name,
                metavar=setting.metavar,
                action="append" if setting.repeats else "store",
                help=_help(setting),
            )


def _help(setting: Setting) -> str:
    default = setting.why if setting.default is None else toml_value(setting.default)
    text = setting.summary if setting.default == () else f"{setting.summary} (default: {default})"
    return text.replace("%", "%%").replace("`", "")


def _print(text: str, code: int) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(f"standard output cannot be written: {error.strerror}")
        _forget_stdout()
        return EXIT_OUTPUT
    return code


def _replace_closed_streams() -> None:
    # `netwatch run >&-` starts without the descriptor, and Python then without the object. In the order of their
    # numbers, each takes its own again: otherwise the next socket would get it, and the flows.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - open as long as the process lives


def _forget_stdout() -> None:
    # Python flushes once more at exit, and would complain of the same error then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
