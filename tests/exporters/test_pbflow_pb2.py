"""The generated classes and the file that they are generated from."""

from __future__ import annotations

import re
from pathlib import Path

from netwatch.exporters import pbflow_pb2

FLOW_PROTO = Path(__file__).resolve().parents[2] / "protos" / "flow.proto"
BLOCK = re.compile(r"^(message|enum) (\w+) \{(\}|.*?^\})", re.MULTILINE | re.DOTALL)
NUMBERED = re.compile(r"(\w+) = (\d+);")


def test_generated_from_this_file() -> None:
    """Whoever changes a message or an enum in flow.proto has generated the classes again (protos/README.md)."""
    source = re.sub(r"//.*", "", FLOW_PROTO.read_text())
    declared = {
        name: {field: int(number) for field, number in NUMBERED.findall(content)}
        for _, name, content in BLOCK.findall(source)
    }

    generated = {
        name: {field.name: field.number for field in message.fields}
        for name, message in pbflow_pb2.DESCRIPTOR.message_types_by_name.items()
    }
    generated |= {
        name: {value.name: value.number for value in enum.values}
        for name, enum in pbflow_pb2.DESCRIPTOR.enum_types_by_name.items()
    }
    assert declared == generated
    assert len(declared["Record"]) == 38 + 18  # the protocol's, and ours


def test_service() -> None:
    """The path of the gRPC call follows from package, service and method: no collector would find another."""
    (service,) = pbflow_pb2.DESCRIPTOR.services_by_name.values()

    (method,) = service.methods
    assert (service.full_name, method.name) == ("pbflow.Collector", "Send")
    assert (method.input_type.name, method.output_type.name) == ("Records", "CollectorReply")
