"""Backups of what cannot be computed again: the ledger, the pins, trust and keys."""
