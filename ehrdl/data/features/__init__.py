"""Features of samples: static features, the history of stays for clinical scores, and the table for baselines."""
