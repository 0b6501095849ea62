"""The processes of a run: who leads, how they meet, what signals do, and how they end."""
