"""Names of Ethernet types that are not IP, for the ledger."""

from __future__ import annotations

# IEEE 802 numbers, as in include/uapi/linux/if_ether.h.
_NAMES = {
    0x0806: "ARP",
    0x8035: "RARP",
    0x8100: "VLAN",
    0x8847: "MPLS",
    0x8848: "MPLS multicast",
    0x8863: "PPPoE discovery",
    0x8864: "PPPoE session",
    0x888E: "EAPOL",
    0x88A8: "QinQ",
    0x88CC: "LLDP",
    0x88E5: "MACsec",
    0x88F7: "PTP",
    0x8906: "FCoE",
    0x8915: "RoCE",
}

# Below this, the field is a length and an 802.2 header follows (IEEE 802.3 3.2.6).
_FIRST_TYPE = 0x0600


def ethertype_name(kind: int) -> str:
    """Return a type's name with its number, or its number alone; "802.3" for what is a length."""
    if kind < _FIRST_TYPE:
        return "802.3"
    name = _NAMES.get(kind)
    return f"{name} (0x{kind:04x})" if name else f"0x{kind:04x}"
