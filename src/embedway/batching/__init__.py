"""Batches by token length, and one scheduler for the batches of all callers."""
