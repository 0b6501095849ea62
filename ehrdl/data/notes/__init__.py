"""Clinical notes: their texts, sections, vocabulary and tokens."""
