"""Model files: found, downloaded, checked by their hashes, and kept."""
