"""The money that was spent and may be spent, and the space of each collection."""
