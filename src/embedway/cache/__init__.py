"""Cache of computed vectors: keys, entries and stores."""
