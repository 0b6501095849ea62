"""Clinical definitions: the map from codes to channels, code sets, reference ranges and scores."""
