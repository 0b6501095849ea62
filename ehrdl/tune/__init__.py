"""`ehrdl tune`: the search for a configuration's best values, on training and tuning subjects only."""
