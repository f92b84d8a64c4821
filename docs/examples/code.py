"""Nearest neighbours by brute force."""

import numpy as np


def nearest(query, vectors, count=10):
    """Positions of the vectors that lie nearest to a query, the nearest first."""
    scores = vectors @ query
    some = np.argpartition(-scores, min(count, len(scores) - 1))[:count]
    return some[np.argsort(-scores[some])]
