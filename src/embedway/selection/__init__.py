"""Selection of a model for a request."""
