"""Finds the type of an Arrow column's values beneath any dictionary encoding or extension type."""

import pyarrow as pa


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values, without any dictionary encoding or extension type around it.

    The UUID type is returned unchanged, because its values are stored as raw bytes, not as text.
    """
    if isinstance(kind, pa.UuidType):
        return kind
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    return plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's binary types. A column of such a type may hold text."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's string types."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
