"""Clinical knowledge, each item once: concepts (codes to channels) and code sets."""
