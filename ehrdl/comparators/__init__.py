"""Models that the deep models are compared with: baselines, clinical scores, and combinations of several models."""
