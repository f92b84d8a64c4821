"""Ledger of spending and its limits, and the pinned space of each collection."""
