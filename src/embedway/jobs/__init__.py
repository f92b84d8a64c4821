"""Jobs: from sources over documents and chunks to a destination full of vectors."""
