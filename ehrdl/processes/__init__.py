"""The processes of a run: the leader and its followers, their meeting, their signals and their end."""
