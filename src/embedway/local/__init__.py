"""The built-in model runtime: weights, encoder graphs, backends and their tuning. No torch."""
