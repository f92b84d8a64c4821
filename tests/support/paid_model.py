"""Settings of a model that costs money, for tests of commands."""

MODEL = """
[models.m]
name = "acme/m"
dimensions = 16
max_tokens = 50
price_usd_per_million_tokens = "1000"
[routes.r]
model = "acme/m"
provider = "fake"
"""
