"""Providers of embeddings. One small file each."""
