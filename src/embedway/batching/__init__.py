"""Batches by token length, and one scheduler of the batches of all callers."""
