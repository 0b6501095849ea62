"""Neural networks: encoders of notes and series, fusions, heads."""

from ehrdl.lazy import lazily

_WHERE = {
    "ChannelTransformer": "series.channels",
    "Committee": "networks.committee",
    "ConcatFusion": "fusion.simple",
    "CrossAttentionFusion": "fusion.cross_attention",
    "Encoder": "base",
    "Ensemble": "networks.ensemble",
    "Fusion": "base",
    "GRUD": "series.gru_d",
    "GatedFusion": "fusion.simple",
    "Head": "base",
    "ConcatEncoder": "series.concat",
    "LateFusion": "fusion.simple",
    "LinearHead": "head",
    "MlpHead": "head",
    "MultimodalModel": "networks.multimodal",
    "Network": "base",
    "NoteTransformer": "notes.transformer",
    "SeriesGRU": "series.gru",
    "StaticMlp": "static",
    "TripletTransformer": "series.triplets",
    "WindowSummary": "series.window_summary",
    "WordEvidence": "notes.words",
}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
