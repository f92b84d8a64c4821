"""The page of the gateway and its data."""
