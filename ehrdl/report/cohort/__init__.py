"""The parts of the report on the data: who was predicted, from what, how models were fitted, and what a run is."""
