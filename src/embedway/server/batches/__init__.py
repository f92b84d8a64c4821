"""The emulated Batch API: files, batches of embeddings, their stores, and the runner that computes them."""
