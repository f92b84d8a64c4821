"""Requests to services: limits, attempts, retries, failover and billing."""
