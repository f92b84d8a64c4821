"""Vectors that were computed before: keys, entries, and where they are kept."""
