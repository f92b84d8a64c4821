"""Collections: read documents, split them into chunks, embed and store them, and search the store."""
