"""Classical models and clinical scores, which read one row per sample."""
