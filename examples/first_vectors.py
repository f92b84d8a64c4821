"""Embed three texts with the default model, and find the one that answers a question."""

import numpy as np

from embedway import Embedder

texts = ["Rotate a log file at 10 MB.", "Bake bread at 230 degrees.", "Retry a request that timed out."]
with Embedder() as embedder:
    documents = embedder.embed_documents(texts)
    query = embedder.embed_query("my logs fill the disk")
scores = np.asarray(documents) @ query[0]
for score, text in sorted(zip(scores, texts, strict=True), reverse=True):
    print(f"{score:.2f}  {text}")
print(documents.space.id, documents.vectors.shape)
