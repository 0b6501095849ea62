"""The PhysioNet/CinC Challenge of 2012: 48 hours of intensive care, and death in hospital."""
