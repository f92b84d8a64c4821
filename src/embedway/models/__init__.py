"""Opened models of all kinds, with one interface."""
