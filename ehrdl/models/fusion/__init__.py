"""Fusions, which turn the encoded modalities of a sample into one vector."""

from ehrdl.lazy import lazily

_WHERE = {
    "ConcatFusion": "simple",
    "CrossAttentionFusion": "cross_attention",
    "GatedFusion": "simple",
    "LateFusion": "simple",
}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
