"""Training of networks with Lightning, and predictions of fitted networks."""
