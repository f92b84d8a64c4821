"""Collections: documents are read, cut, embedded and written to a store, and the store is searched."""
