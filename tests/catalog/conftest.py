"""A complete catalog row as text, to break in one place, and a loader for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from embedway.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EMBED_ROW = """\
[[model]]
name = "acme/tiny"
aliases = ["tiny", "acme-tiny"]
task = "embed"
architecture = "bert"
dimensions = 64
matryoshka = [32, 16]
max_tokens = 128
pooling = "mean"
normalized = true
prompts = { query = "q: ", document = "" }
languages = ["en", "pt-BR"]
licence = "MIT"
parameters = 1000

[model.weights]
repository = "acme/tiny"
revision = "0123456789abcdef0123456789abcdef01234567"
files = [
  { path = "model.safetensors", size = 4000, sha256 = "HASH" },
  { path = "tokenizer.json" },
]
wheels = [{ name = "acme-tiny", version = "1.0", prefix = "acme_tiny/model" }]

[[model.sources]]
url = "https://example.org/tiny"
date = 2026-01-31
facts = [
  "task", "architecture", "dimensions", "matryoshka", "max_tokens", "pooling",
  "normalized", "prompts", "languages", "licence", "parameters", "weights",
]
""".replace("HASH", "aa11" * 16)

RERANK_ROW = """\
[[model]]
name = "acme/judge"
aliases = ["judge"]
task = "rerank"
architecture = "xlm-roberta"
max_tokens = 512
languages = ["mul"]
licence = "MIT"
parameters = 2000
weights = { repository = "acme/judge", files = [{ path = "model.safetensors" }] }
sources = [{ url = "https://example.org", date = 2026-01-31, facts = [
  "task", "architecture", "max_tokens", "languages", "licence", "parameters", "weights",
] }]
"""


@pytest.fixture
def embed_row() -> str:
    return EMBED_ROW


@pytest.fixture
def rerank_row() -> str:
    return RERANK_ROW


@pytest.fixture
def load_with(tmp_path: Path) -> Callable[..., Catalog]:
    """Load the packaged catalog with the given texts as files 1.toml, 2.toml, …"""

    def load(*texts: str) -> Catalog:
        paths = []
        for number, text in enumerate(texts, start=1):
            path = tmp_path / f"{number}.toml"
            path.write_text(text, encoding="utf-8")
            paths.append(path)
        return Catalog.load(paths)

    return load
