"""Parsers: text of a format to a document's text, its structure and its lines."""
