"""Reranking: scores for how well documents answer a query, from this machine or from services."""
