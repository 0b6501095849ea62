"""Networks: encoders of notes and series, fusion, heads; and the classical models."""
