"""The settings: what can be set, its default and why, its limits and what happens there.

Law: a Config is valid, or it does not exist. Each setting is described here and nowhere else: the README's table, the
flags, the variables and the TOML keys come from these fields.
Neighbours: `kinds.py` says what a value may be, `sources.py` reads values, `agent.py` acts on them.
"""

# setting() declares a field, it computes no default:
# ruff: noqa: RUF009

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import attrs

from netwatch.errors import ConfigError
from netwatch.settings.exporter_url import ExporterUrl
from netwatch.settings.interface_pattern import InterfacePattern
from netwatch.settings.kinds import (
    Choice,
    Count,
    FilePath,
    IpAddress,
    ListenAddress,
    Optional,
    Port,
    PowerOfTwo,
    Seconds,
    Several,
    Switch,
    Switches,
)
from netwatch.settings.setting import setting, settings_of

CapturedDirection = Literal["ingress", "egress", "both"]
OutputFormat = Literal["table", "wide", "json"]
Sampled = Literal["packet", "flow"]
Namespaces = Literal["own", "all"]
Enrichment = Literal["drops", "rtt", "dns", "tcp", "process", "interfaces", "overflow", "nat"]
LogLevel = Literal["debug", "info", "warning", "error"]
Attach = Literal["auto", "tcx", "tc"]
Gso = Literal["wire", "skb"]

_DAY_S = 86_400
_MIB = 1 << 20


@attrs.frozen(kw_only=True)
class Config:
    """All settings of `netwatch run`. Raises ConfigError for values that are wrong, alone or together."""

    interfaces: tuple[str, ...] = setting(
        Several(InterfacePattern(), 64),
        (),
        "interfaces to watch, by NAME or /REGEX/; none given: all but loopback",
        why="all traffic of a host; `lo` repeats none of it and is there for the asking",
        limits="64 patterns; a NAME that is not there, or nothing selected at all, ends the run",
        flag="-i --interface NAME|/REGEX/",
    )
    exclude_interfaces: tuple[str, ...] = setting(
        Several(InterfacePattern(), 64),
        (),
        "interfaces to leave out, even if they were asked for",
        why="each packet counts once however many interfaces it passes, so none needs to be left out",
        limits="64 patterns; one that matches nothing has no effect",
        flag="--exclude-interface NAME|/REGEX/",
    )
    exporters: tuple[str, ...] = setting(
        Several(ExporterUrl(), 8),
        ("stdout",),
        "where flows go: `stdout`, `grpc://HOST:PORT[,HOST:PORT...]`, `grpcs://...` (TLS)",
        why="a first look needs no collector",
        limits="8 exporters, because each has a queue of its own (`max_queue_bytes`)",
        flag="-x --exporter URL",
    )
    active_timeout_s: float = setting(
        Seconds(0.05, 3600),
        5.0,
        "period of the drain: a flow that goes on is reported once in each",
        why="dashboards refresh every few seconds; shorter costs CPU, longer costs map entries",
        limits="50 ms to 1 h; a drain that takes longer than the period delays the next one and loses nothing",
        flag="--active-timeout S",
    )
    max_flows: int = setting(
        Count(1, 1 << 24),
        131_072,
        "entries of each of the three flow maps",
        why="26,000 new flows a second x 5 s; 82 MB of kernel memory",
        limits="16,777,216; a packet of a new flow is lost and counted (kernel, map full), known flows go on counting",
        flag="--max-flows N",
    )
    max_fragments: int = setting(
        Count(1, 1 << 20),
        4096,
        "fragmented datagrams whose ports are remembered for their later fragments",
        why="fragments follow each other within milliseconds: 4,096 under way at once are an attack, not traffic",
        limits="1,048,576; the least recently used is forgotten, and its later fragments count to a flow without ports",
    )
    sampling: int = setting(
        Count(1, (1 << 32) - 1),
        1,
        "look at one packet in N",
        why="every packet is counted",
        limits="32 bits in the record; packets not looked at are in the ledger as ignored (not sampled)",
        flag="--sampling N",
    )
    sampling_mode: Sampled = setting(
        Choice[Sampled](get_args(Sampled)),
        "packet",
        "what is sampled: one `packet` in N, or one `flow` in N, all packets of it, both directions",
        why="a sample of packets keeps all large flows",
        limits="by `packet`, what is known of a flow is told only if one of its packets was looked at",
    )
    enrich: tuple[Enrichment, ...] = setting(
        Switches(Choice[Enrichment](get_args(Enrichment)), len(get_args(Enrichment))),
        get_args(Enrichment),
        "what to find out beside counting, each word a switch: `drops`, `rtt`, `dns`, `tcp` (retransmissions, states, "
        "resets), `process`, `interfaces` (a flow's seventh and more), `overflow` (what a full map leaves out), `nat`",
        why="each costs little; one that is off is not compiled in",
        limits="`[]` (`--enrich none`) for none",
        flag="--enrich WORD",
    )
    enrich_namespace: Namespaces = setting(
        Choice[Namespaces](get_args(Namespaces)),
        "own",
        "whose drops and connections are told: of our `own` network namespace, or of `all` on the machine",
        why="those of others belong to flows that our interfaces may never see",
        limits="with `all`, namespaces that use the same addresses are not told apart",
    )
    ring_bytes: int = setting(
        PowerOfTwo(65_536, 1 << 30),
        8 * _MIB,
        "ring through which the kernel tells what it found out",
        why="65,536 events of 128 B: 131 ms of 500,000 a second; emptied each `ring_period_s`, or a quarter full",
        limits="64 KiB to 1 GiB, a power of 2; an event that finds no room is lost and counted",
    )
    ring_period_s: float = setting(
        Seconds(0.001, 10),
        0.1,
        "how long an event may stay in the ring",
        why="a container that lives for a second can still be named; with 5,000 events a second, ten turns a second "
        "take 0.5 % of a core, one takes 0.2 %",
        limits="1 ms to 10 s; the programs wake us earlier when a quarter of the ring is full",
    )
    join_grace_s: float = setting(
        Seconds(0.001, 10, zero_means="none"),
        0.05,
        "how long a drain waits for what is still to be told of its flows",
        why="a packet may wait in queues for milliseconds before it is dropped; what comes later is told apart",
        limits="0 to 10 s, and below `active_timeout_s`: a shorter period waits a quarter of it",
    )
    max_pending_events: int = setting(
        Count(1024, 1 << 26),
        262_144,
        "events that wait for their flow",
        why="two of each of 131,072 flows; 31 MB (DNS: 85 MB), and three times as much while they are joined",
        limits="67,108,864; the oldest are lost and counted; those of the drain under way come on top",
    )
    max_recent_flows: int = setting(
        Count(0, 1 << 24),
        131_072,
        "flows that have been exported and are remembered, for what is told of them later; and as many connections of "
        "other network namespaces whose owners are known",
        why="as many as one drain can have (`max_flows`); 13 MB, 29 MB with an owner at each end",
        limits="16,777,216; the oldest are forgotten: what is told of them later counts as of no flow",
    )
    drop_window_s: float = setting(
        Seconds(0.001, 10, zero_means="merge none"),
        0.01,
        "drops of one flow for one reason that come within so long are told together",
        why="a flood of 500,000 drops of a flow is 100 events a second; the sums stay exact",
        limits="0 to 10 s",
    )
    rtt_fraction: int = setting(
        Count(1, 1024),
        8,
        "a round-trip time is told when it has moved by more than 1/N, and once in each drain",
        why="the kernel smooths over eight samples itself",
        limits="1,024",
    )
    dns_ports: tuple[int, ...] = setting(
        Several(Port(), 4),
        (53,),
        "UDP and TCP ports of DNS servers",
        why="RFC 1035",
        limits="4 ports",
    )
    dns_timeout_s: float = setting(
        Seconds(0.05, 600),
        5.0,
        "a DNS question without an answer for so long has failed",
        why="resolv.conf's timeout: the client asks again",
        limits="50 ms to 10 min",
    )
    max_dns_questions: int = setting(
        Count(1, 1 << 22),
        65_536,
        "DNS questions that wait for their answer",
        why="13,000 a second x 5 s; 43 MB at the worst, with names of 255 bytes",
        limits="4,194,304; the oldest are forgotten: their answers have no latency",
    )
    max_translations: int = setting(
        Count(1, 1 << 24),
        65_536,
        "translated connections (NAT) that are remembered",
        why="as many as conntrack takes on a machine of 4 GB; 20 MB at the worst",
        limits="16,777,216; the oldest are forgotten: their flows show no translation",
    )
    direction: CapturedDirection = setting(
        Choice[CapturedDirection](get_args(CapturedDirection)),
        "both",
        "which way packets cross the interfaces: `ingress`, `egress` or `both`",
        why="a conversation has two directions",
        limits="a direction that is left out has no hook: its packets are in no count",
        flag="--direction ingress|egress|both",
    )
    duration_s: float | None = setting(
        Optional(Seconds(0.05, 365 * _DAY_S)),
        None,
        "stop by itself after so long",
        why="a daemon runs until it is told to stop",
        limits="50 ms to a year; ends as a SIGTERM does, with everything exported",
        flag="--duration S",
    )
    format: OutputFormat | None = setting(
        Optional(Choice[OutputFormat](get_args(OutputFormat))),
        None,
        "what `stdout` prints: `table`, `wide` (all columns, however long the line) or `json`, one line a flow",
        why="a table on a terminal, JSON lines otherwise",
        flag="--format table|wide|json",
    )
    ledger: Path | None = setting(
        Optional(FilePath()),
        None,
        "file for the ledger as JSON, written at the end",
        why="the ledger is on stderr as text in any case",
        limits="its directory has to be there at the start; an older file is replaced",
        flag="--ledger FILE",
    )
    record: Path | None = setting(
        Optional(FilePath()),
        None,
        "file for a recording of all that comes out of the kernel, to be replayed with `netwatch replay`",
        why="a recording holds addresses and names",
        limits="`max_record_bytes`; a file that cannot be written ends the run, a disk that is full ends the recording",
        flag="--record FILE",
    )
    max_record_bytes: int = setting(
        Count(1 << 20, 1 << 40),
        256 * _MIB,
        "size of a recording: FILE and the part before it, FILE.1, have half of it each",
        why="256 MiB: 60 s of 20,000 flows a second with an event each (150 + 130 B), hours of a quiet host",
        limits="1 MiB to 1 TiB; the oldest half is dropped",
    )
    metrics_listen: str | None = setting(
        Optional(ListenAddress()),
        None,
        "address of the Prometheus metrics, `/healthz` and `/readyz`; a port alone is on loopback",
        why="no port is opened that nobody asked for",
        limits="an address in use ends the run",
        flag="--metrics-listen HOST:PORT",
    )
    log_level: LogLevel = setting(
        Choice[LogLevel](get_args(LogLevel)),
        "info",
        "least level of what is logged on stderr: `debug`, `info`, `warning` or `error`",
        why="starts, stops and losses, nothing for each flow",
        flag="--log-level L",
    )
    attach: Attach = setting(
        Choice[Attach](get_args(Attach)),
        "auto",
        "how programs are attached: `tcx` (Linux 6.6), `tc` (clsact), or `auto`: the first that works",
        why="a TCX link dies with the process, a clsact filter has to be removed",
        limits="`tcx` on a kernel without it ends the run",
        flag="--attach auto|tcx|tc",
    )
    gso: Gso = setting(
        Choice[Gso](get_args(Gso)),
        "wire",
        "how a GSO packet counts: as the segments it becomes on the `wire`, or as one socket buffer (`skb`)",
        why="the numbers then agree with those of switches and of the other end",
        flag="--gso wire|skb",
    )
    grace_s: float = setting(
        Seconds(0.05, 3600, zero_means="do not wait"),
        10.0,
        "how long a stop may take to deliver what is queued",
        why="container runtimes kill 10 s (Docker) or 30 s (Kubernetes) after SIGTERM",
        limits="0 to 1 h; what is not delivered by then is lost and counted (shutdown)",
        flag="--grace S",
    )
    max_queue_bytes: int = setting(
        Count(65_536, 1 << 40),
        64 * _MIB,
        "queue of each exporter",
        why="64 MiB: 466,000 flows of 144 B: 18 s at 26,000 flows a second while a collector restarts",
        limits="64 KiB to 1 TiB; the oldest batch is lost and counted (queue, full)",
    )
    max_message_flows: int = setting(
        Count(1, 1_000_000),
        10_000,
        "flows in one gRPC message",
        why="about 1.5 MB, well below what collectors take",
        limits="1,000,000; a batch is split into several messages",
    )
    max_message_bytes: int = setting(
        Count(4096, 1 << 30),
        3_900_000,
        "bytes of one gRPC message",
        why="gRPC servers refuse more than 4 MiB (4,194,304) unless they are told otherwise",
        limits="4 KiB to 1 GiB, and at most `max_queue_bytes`; a batch is split into several messages",
    )
    deadline_s: float = setting(
        Seconds(0.05, 3600),
        10.0,
        "how long a collector may take for one message",
        why="a healthy one answers in milliseconds; one that hangs is given up in time for another",
        limits="50 ms to 1 h; the message is kept and sent again",
    )
    backoff_min_s: float = setting(
        Seconds(0.001, 3600),
        0.1,
        "first pause after a failed send",
        why="a collector that only restarted is found again at once",
        limits="1 ms to 1 h; doubles with each failure, with jitter",
    )
    backoff_max_s: float = setting(
        Seconds(0.001, 3600),
        30.0,
        "longest pause between two attempts",
        why="two attempts a minute are no burden for a collector that comes back",
        limits="1 ms to 1 h, and at least `backoff_min_s`",
    )
    reconnect_s: float = setting(
        Seconds(1, _DAY_S, zero_means="never"),
        0.0,
        "reconnect so often, with jitter, so that a load balancer can spread agents anew",
        why="only a load balancer needs it",
        limits="1 s to a day, or 0: never; a message under way is finished first",
    )
    ca: Path | None = setting(
        Optional(FilePath()),
        None,
        "PEM file of the authorities that `grpcs://` collectors are checked against",
        why="the system's authorities",
        limits="a file that cannot be read ends the run",
    )
    cert: Path | None = setting(
        Optional(FilePath()),
        None,
        "PEM file of our certificate, for collectors that ask for one (mutual TLS)",
        why="most collectors ask for none",
        limits="needs `key`; a file that cannot be read ends the run",
    )
    key: Path | None = setting(
        Optional(FilePath()),
        None,
        "PEM file of our certificate's private key",
        why="most collectors ask for none",
        limits="needs `cert`; a file that cannot be read ends the run",
    )
    require_tls: bool = setting(
        Switch(),
        False,
        "refuse exporters that would send flows in plain text",
        why="a collector beside the agent, or in a mesh, speaks plain gRPC",
        limits="`grpc://` then ends the run",
    )
    minimal_varints: bool = setting(
        Switch(),
        False,
        "encode protobuf numbers in as few bytes as they need",
        why="fixed widths encode faster and are as valid; receivers see no difference",
    )
    agent_ip: str | None = setting(
        Optional(IpAddress()),
        None,
        "our address in the flows (AgentIP)",
        why="the address of the interface that the default route uses",
    )
    bpf_stats: bool = setting(
        Switch(),
        False,
        "measure the run time of our programs by the kernel's BPF statistics, for the metrics",
        why="the measurement itself costs about 20 ns a packet, and concerns every BPF program of the machine",
        limits="needs CAP_SYS_ADMIN, which root has",
    )

    def __attrs_post_init__(self) -> None:
        """Check what settings mean together."""
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise ConfigError(given, str(getattr(self, given)), f"{missing} is missing: the two belong together")
        if self.backoff_min_s > self.backoff_max_s:
            raise ConfigError("backoff_min_s", self.backoff_min_s, f"above backoff_max_s = {self.backoff_max_s}")
        if self.max_message_bytes > self.max_queue_bytes:
            raise ConfigError(
                "max_message_bytes", self.max_message_bytes, f"above max_queue_bytes = {self.max_queue_bytes}"
            )
        plain = [url for url in self.exporters if url.startswith("grpc://")]
        if plain and self.require_tls:
            raise ConfigError("exporters", plain[0], "require_tls is set; use grpcs://")
        # Files for TLS and no TLS: somebody believes that the flows are encrypted.
        if plain and (self.ca or self.cert) and not any(url.startswith("grpcs://") for url in self.exporters):
            raise ConfigError("exporters", plain[0], f"{'ca' if self.ca else 'cert'} is set; use grpcs:// for TLS")


SETTINGS = settings_of(Config)
