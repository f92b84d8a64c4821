"""Model files by their hashes: sources, downloads, checks, and the store."""
