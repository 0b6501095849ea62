"""A synthetic hospital in MIMIC-IV's layout, with a known true risk. It imports nothing else of ehrdl."""
