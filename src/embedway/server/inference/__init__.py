"""Process that computes local models for all workers of the gateway, and its client."""
