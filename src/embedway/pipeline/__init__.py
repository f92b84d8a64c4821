"""Processing of a request from texts to vectors or scores: checks, plan, receipt."""
