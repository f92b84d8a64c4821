"""Batches by token length, and one schedule of them for all callers."""
