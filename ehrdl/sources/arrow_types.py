"""Tells the types of an Arrow column's values, without the wrapping or encoding that its writer chose."""

import pyarrow as pa


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values without dictionary encoding or extension types, which a writer may add.

    A UUID keeps its type, because it is stored as raw bytes, not as text.
    """
    if isinstance(kind, pa.UuidType):
        return kind
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    return plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds text that its writer marked as bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds text, in any of Arrow's layouts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
