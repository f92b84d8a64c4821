"""Selection of the model of a request."""
