"""Documents in, vectors in a store out, and search in what was written."""
