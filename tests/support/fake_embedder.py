"""Tokenizers small enough to build here, and an embedder whose vectors depend on the text alone."""

import hashlib
import string
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from embedway import Config
from embedway.types import EmbedResult, Receipt, Space, Timing, Truncation

DIMENSIONS = 8
WORDS = ["event", "loop", "thread", "run", "code", "def", "class", "return", "the", "json", "##s", "##ing"]


def build_wordpiece():
    characters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = ["[UNK]", "[CLS]", "[SEP]", *characters, *(f"##{c}" for c in characters), *WORDS]
    tokenizer = Tokenizer(models.WordPiece({token: n for n, token in enumerate(tokens)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def build_byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("e", "r"), ("Ġ", "t"), ("Ġt", "h"), ("Ġ", "Ġ"), ("i", "n")]
    tokens = ["<s>", "</s>", *alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


@dataclass(frozen=True)
class Description:
    space: Space
    max_tokens: int
    variant = ""
    special_tokens: int
    tokenizer: Tokenizer
    runtime: str = "fake f32"
    model: str = "fake"


@dataclass
class FakeEmbedder:
    """Records its texts; `on_embed`, if set, is awaited before each answer."""

    tokenizer: Tokenizer = field(default_factory=build_wordpiece)
    max_tokens: int = 64
    prompt: str = ""
    on_embed: object = None
    is_batch_dependent: bool = False
    config: Config = field(default_factory=lambda: Config.load(environ={}))
    calls: list = field(default_factory=list)

    @property
    def space(self):
        return Space("fake", "ab" * 32, DIMENSIONS, "mean", normalized=True, document_prompt=self.prompt)

    @property
    def models(self):
        return self

    async def describe(self, model="auto", dimensions=None, *, load=False):
        return Description(self.space, self.max_tokens, 2, self.tokenizer)

    async def plan(self, texts, **_):
        stored = self.config.cache.backend != "none" and not self.is_batch_dependent
        return SimpleNamespace(cached_texts=len(texts) * stored)

    async def embed(
        self, texts, *, input_type="document", model="auto", dimensions=None, on_overflow="truncate", partial=False
    ):
        assert input_type == "document"
        assert partial
        self.calls.append(len(texts))
        errors = (await self.on_embed(texts) or {}) if self.on_embed is not None else {}
        lengths = [len(self.tokenizer.encode(text).ids) for text in texts]
        cut = tuple(
            Truncation(row, self.max_tokens, 0, 0, length - self.max_tokens)
            for row, length in enumerate(lengths)
            if length > self.max_tokens
        )
        receipt = Receipt(
            model="fake",
            route="fake",
            space_id=self.space.id,
            texts=len(texts),
            unique_texts=len(set(texts)),
            tokens=sum(min(length, self.max_tokens) for length in lengths),
            billed_tokens=0,
            cost_nanousd=None,
            cache_hits=0,
            attempts=1,
            truncations=cut,
            timing=Timing(),
            runtime="fake f32",
        )
        vectors = vectors_of(texts)
        vectors[list(errors)] = np.nan
        return EmbedResult(vectors=vectors, space=self.space, receipt=receipt, errors=errors)


def vectors_of(texts):
    """Return one vector of length 1 per text, from its hash."""
    raw = np.array([list(hashlib.sha256(text.encode()).digest()[:DIMENSIONS]) for text in texts], np.float32)
    centred = raw - 127.5
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)
