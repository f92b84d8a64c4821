"""One request from its texts to its vectors or scores: checks, plan, receipt."""
