"""A network interface as rtnetlink describes it, and what can happen to one.

Law: values only; whether an interface can be attached follows from its link type, never from its name.
Neighbours: `kernel/netlink.py` makes links and events, `selection.py` and `watch.py` decide on them.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

ARPHRD_LOOPBACK = 772

# Link types of include/uapi/linux/if_arp.h. With an Ethernet header in front of each packet:
_ETHERNET_TYPES = frozenset({1, ARPHRD_LOOPBACK})
# Without: at a tc hook, packets of these begin at the network header. PPP is among them because ppp_start_xmit() adds
# its two bytes after the egress hook, and ppp_receive_nonmp_frame() takes them off before the ingress hook.
_IP_TYPES = frozenset(
    {
        512,  # PPP
        519,  # RAWIP: mobile modems
        768,  # TUNNEL: IP in IP
        769,  # TUNNEL6
        776,  # SIT: IPv6 in IPv4
        778,  # IPGRE
        823,  # IP6GRE
        65534,  # NONE: tun, WireGuard
    }
)


@attrs.frozen
class Link:
    """One interface. `arphrd` is its link type (ARPHRD_*), `kind` its driver's rtnetlink name: veth, vxlan, tun."""

    ifindex: int
    name: str
    arphrd: int
    is_up: bool
    kind: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether this is the loopback interface, whatever its name."""
        return self.arphrd == ARPHRD_LOOPBACK

    @property
    def is_attachable(self) -> bool:
        """Whether the programs can read packets of this link type."""
        return self.arphrd in _ETHERNET_TYPES or self.arphrd in _IP_TYPES

    @property
    def has_link_header(self) -> bool:
        """Whether packets begin with an Ethernet header; without one they begin at the network header."""
        return self.arphrd in _ETHERNET_TYPES


@attrs.frozen
class LinkSeen:
    """An interface is there: new, or changed in any way."""

    link: Link


@attrs.frozen
class LinkGone:
    """An interface was deleted, or moved to another network namespace."""

    ifindex: int


@attrs.frozen
class EventsLost:
    """The kernel had no room for events: what happened is unknown until the interfaces are listed again."""


LinkEvent: TypeAlias = LinkSeen | LinkGone | EventsLost
