"""Opened models of every kind, behind one contract."""
