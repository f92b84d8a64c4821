"""Accuracy of a model on the built-in query-passage pairs, by group: `python benchmarks/pairs.py [MODEL]`.

Then with noise on all vectors, which shows that a degraded model loses accuracy.
"""

import sys
from collections import defaultdict

import numpy as np

from embedway import Config, Embedder
from embedway.quality.pairs import BUILT_IN_VERSION, built_in_pairs


def found_rows(queries, passages):
    return (queries @ passages.T).argmax(axis=1) == np.arange(len(queries))


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else "all-MiniLM-L6-v2"
    pairs = built_in_pairs()
    settings = {"backend": "none"}, {"check_scripts": False}
    with Embedder(model=model, config=Config(cache=settings[0], quality=settings[1])) as embedder:
        queries = embedder.embed([pair.query for pair in pairs], input_type="query").vectors
        passages = embedder.embed([pair.passage for pair in pairs]).vectors
    found, groups = found_rows(queries, passages), defaultdict(list)
    for pair, one in zip(pairs, found, strict=True):
        groups[pair.group].append(one)
    print(f"{model}, version {BUILT_IN_VERSION}: {found.sum()} of {len(pairs)}, {found.mean():.3f}")
    for group, ones in groups.items():
        print(f"  {group:6} {sum(ones)} of {len(ones)}")
    random = np.random.default_rng(0)
    for scale in (0.03, 0.05, 0.08):
        noisy = (rows + random.normal(0, scale, rows.shape) for rows in (queries, passages))
        print(f"  noise {scale}: {found_rows(*noisy).mean():.3f}")


if __name__ == "__main__":
    main()
