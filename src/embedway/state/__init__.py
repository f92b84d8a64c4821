"""Backups of state that cannot be recomputed: the ledger, the pins, trust and keys."""
