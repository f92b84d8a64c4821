"""Quality of vectors: checks of each answer, baselines and drift, and equivalence of routes."""
