"""Clinical knowledge, each item declared once: concepts (from codes to channels), code sets and scores."""
