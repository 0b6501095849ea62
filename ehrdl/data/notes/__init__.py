"""Notes: their texts, sections, vocabulary and tokens."""
