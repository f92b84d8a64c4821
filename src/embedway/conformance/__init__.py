"""Conformance: checks of any server with OpenAI's embeddings API, for what its clients rely on."""
