"""Reranking: scores of how well documents answer a query, on this machine or by services."""
