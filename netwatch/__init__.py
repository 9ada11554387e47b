"""netwatch: an eBPF network-flow agent that accounts for every packet."""

__version__ = "0.1.0"
