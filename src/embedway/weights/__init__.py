"""Content-addressed model files: sources, downloads, checks and the store."""
