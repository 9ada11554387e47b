"""Protobuf from columns: a field of ten thousand messages costs a few numpy calls, not ten thousand method calls."""
