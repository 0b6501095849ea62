"""One file a source: a hospital's tables in, EVENTS out."""
