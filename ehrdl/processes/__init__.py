"""The processes of a run: the first process leads and the others follow; how they connect, and how they end."""
