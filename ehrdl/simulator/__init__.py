"""A synthetic hospital in MIMIC-IV's layout, with a known true risk of readmission. It uses nothing else of ehrdl."""
