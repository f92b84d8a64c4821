"""What was spent, what may be spent, and which collection is of which space."""
