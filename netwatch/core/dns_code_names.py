"""What people call the numbers in a DNS message: response codes and types of question.

Law: a number without a name stays a number; nothing is guessed.
Neighbours: `core/json_facts.py`, `core/notes.py` and `core/fact_cells.py` show them; pbflow carries the numbers.
"""

from __future__ import annotations

from types import MappingProxyType

from netwatch.core.dns_message import RESPONSE_CODE_MASK, RESPONSE_FLAG

NO_ERROR = "NoError"

# IANA, DNS RCODEs: those that fit the header's four bits.
_RESPONSE_CODES = MappingProxyType(
    {
        0: NO_ERROR,
        1: "FormErr",
        2: "ServFail",
        3: "NXDomain",
        4: "NotImp",
        5: "Refused",
        6: "YXDomain",
        7: "YXRRSet",
        8: "NXRRSet",
        9: "NotAuth",
        10: "NotZone",
        11: "DSOTYPENI",
    }
)

# IANA, Resource Record TYPEs: what is asked for in practice.
_QUESTION_TYPES = MappingProxyType(
    {
        1: "A",
        2: "NS",
        5: "CNAME",
        6: "SOA",
        12: "PTR",
        15: "MX",
        16: "TXT",
        28: "AAAA",
        33: "SRV",
        35: "NAPTR",
        37: "CERT",
        39: "DNAME",
        43: "DS",
        44: "SSHFP",
        46: "RRSIG",
        47: "NSEC",
        48: "DNSKEY",
        50: "NSEC3",
        52: "TLSA",
        251: "IXFR",
        252: "AXFR",
        255: "ANY",
        257: "CAA",
    }
)

# RFC 1035 4.1.1, RFC 4035 3.2. In the order in which dig shows them.
_HEADER_FLAGS = (
    *((RESPONSE_FLAG, "qr"), (0x0400, "aa"), (0x0200, "tc"), (0x0100, "rd"), (0x0080, "ra")),
    *((0x0020, "ad"), (0x0010, "cd")),
)


def response_code_name(flags: int) -> str:
    """Return the name of the response code in a header's flags, or its number; nothing for a question.

    A question has four zero bits in its place: that is no NoError.
    """
    if not flags & RESPONSE_FLAG:
        return ""
    code = flags & RESPONSE_CODE_MASK
    return _RESPONSE_CODES.get(code) or str(code)


def question_type_name(question_type: int) -> str:
    """Return the name of a type of record; without one TYPE and its number, as RFC 3597 5 writes it."""
    return _QUESTION_TYPES.get(question_type) or f"TYPE{question_type}"


def header_flag_names(flags: int) -> str:
    """Return the flags of a header as dig writes them: `qr rd ra`."""
    return " ".join(name for bit, name in _HEADER_FLAGS if flags & bit)
