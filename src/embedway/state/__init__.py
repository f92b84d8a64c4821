"""Backups of state that cannot be recomputed: the ledger with API keys, the pins, trust, and the gateway's batches."""
