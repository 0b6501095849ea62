"""Series: the store of every subject's observations."""
