"""What stands beside the deep models: baselines and scores as they are fitted and applied, averages and stacks."""
