"""Built-in model runtime: weights, encoder graphs, backends and tuning. No torch."""
