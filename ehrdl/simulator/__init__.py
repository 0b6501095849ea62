"""A synthetic hospital in MIMIC-IV's layout, whose true risk is known. It imports nothing of ehrdl."""
