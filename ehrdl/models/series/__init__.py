"""Encoders of irregularly sampled time series: (samples, observations) -> (samples, width)."""

from ehrdl.lazy import lazily

_WHERE = {
    "ChannelTransformer": "channels",
    "GRUD": "gru_d",
    "SeriesGRU": "gru",
    "TripletTransformer": "triplets",
    "WindowSummary": "window_summary",
}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
