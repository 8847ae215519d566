"""Channel pruning: which channels belong together, how much each matters, and their removal."""
