"""Texts of mixed lengths for tuning, made from words, the same on every machine."""

from __future__ import annotations

import random

_SUBJECTS = (
    "the event loop",
    "a file handle",
    "the HTTP server",
    "this index",
    "a database cursor",
    "the parser",
    "a thread pool",
    "the garbage collector",
    "a vector store",
    "the scheduler",
    "a TLS certificate",
    "the cache",
    "an embedding model",
    "the tokenizer",
    "a message queue",
    "the type checker",
    "a regular expression",
    "the package manager",
    "a container image",
    "the load balancer",
    "a search query",
    "the compiler",
    "an API key",
    "the budget ledger",
    "a time zone",
    "the memory map",
    "a unit test",
    "the configuration file",
)
_VERBS = (
    "blocks until",
    "returns before",
    "must be closed when",
    "is rebuilt after",
    "logs a warning if",
    "fails because",
    "retries whenever",
    "should be created before",
    "is shared while",
    "releases its lock once",
    "expires unless",
    "reports an error when",
    "is validated before",
    "grows as long as",
    "waits for",
    "is replaced after",
)
_OBJECTS = (
    "the request times out",
    "all pending tasks are done",
    "the disk is full",
    "two processes write at once",
    "the connection is reset by its peer",
    "the text is longer than the limit",
    "the user cancels the job",
    "a newer version has been installed",
    "the certificate is no longer valid",
    "the last reader has gone",
    "its checksum does not match",
    "the argument is of another type",
    "the daily limit has been spent",
    "the batch holds fewer rows than asked",
    "the encoding is not UTF-8",
    "an iterator is exhausted",
)
_PROBES = 128
#: Words to a token of such sentences, about; probes aim at lengths, they need not hit them.
_WORDS_PER_TOKEN = 0.85


def probe_texts(max_tokens: int) -> list[str]:
    """128 different texts, from a few tokens to the model's limit (512 at most), short ones more often."""
    chance = random.Random(20_261_123)  # noqa: S311  the same probes everywhere; nothing secret
    longest = min(max_tokens, 512)
    texts = []
    for index in range(_PROBES):
        # Evenly spread on a logarithmic scale from 8 tokens up.
        target = int(8 * (longest / 8) ** (index / (_PROBES - 1)) * _WORDS_PER_TOKEN)
        sentences: list[str] = []
        while not sentences or sum(len(sentence.split()) for sentence in sentences) < target:
            subject, verb, thing = (chance.choice(words) for words in (_SUBJECTS, _VERBS, _OBJECTS))
            sentences.append(f"{subject[0].upper()}{subject[1:]} {verb} {thing}.")
        texts.append(" ".join(sentences))
    return texts
