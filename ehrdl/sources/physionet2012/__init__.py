"""The source for the PhysioNet/CinC Challenge 2012: 48 hours of intensive care, with the outcome death in hospital."""
