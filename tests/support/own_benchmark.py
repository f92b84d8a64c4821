"""A complete benchmark of a model that the catalog does not contain."""

OWN = {
    "model_name": "acme",
    "provider": "custom",
    "avg_latency_ms": 60,
    "quality_score": 64.5,
    "tokens_per_second": 18000,
    "cost_per_million_tokens": "0.05",
    "max_context_length": 2048,
    "embedding_dimensions": 1024,
}
