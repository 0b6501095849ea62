"""Comparators of the deep models: fitting and applying baselines and scores, averages and stacks."""
