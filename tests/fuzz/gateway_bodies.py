"""Random and mutated JSON bodies for the endpoints of the gateway, each with a marked text of its own."""

import copy
import json
import random
import re

#: Form of the text that marks one body: it may be in the answer to this body only, and never in a log.
MARK = re.compile(r"zqmark\d+zq")
#: Maximum size of a body; a gateway may close the connection of one above its limit before it has read all.
_MOST_BYTES = 8 << 20
#: Kinds of bytes that are no JSON, or unusual JSON.
_DAMAGES = ("cut", "bytes", "random", "twice", "deep", "case", "surrogate", "number", "nan", "bom", "nothing")


def valid_bodies(model, reranker):
    """Return valid bodies by dialect: path and body, with `TEXT` in place of the marked text."""
    text, texts = "TEXT", ["TEXT", "another text", "TEXT"]
    documents = {"query": text, "documents": texts}
    openai = {"input": texts, "model": model, "encoding_format": "base64", "dimensions": 8, "user": "someone"}
    more = {"collection": "docs", "priority": 3, "max_cost": 1, "on_overflow": "truncate", "deadline": 60}
    cohere = {"texts": texts, "model": model, "input_type": "search_query", "embedding_types": ["float", "base64"]}
    tei = {"inputs": texts, "truncate": True, "normalize": True, "truncation_direction": "right", "dimensions": 8}
    ollama = {"model": model, "input": texts, "options": {"num_ctx": 4096, "seed": 1}, "keep_alive": "5m"}
    return {
        "openai": [
            ("/v1/embeddings", {**openai, **more}),
            ("/v1/embeddings", {"input": text, "model": model, "input_type": "query", "normalize": True}),
            ("/v1/embeddings", {"input": [[1, 2, 3]], "model": model}),
            ("/v1/plan", {**openai, "input": text}),
            ("/v1/select", {"input": texts, "preset": "fast"}),
            ("/v1/rerank", {**documents, "top_n": 2, "return_documents": True, "model": reranker}),
        ],
        "cohere": [
            ("/v1/embed", {"texts": texts, "model": model, "truncate": "END"}),
            ("/v2/embed", {**cohere, "output_dimension": 8, "truncate": "NONE", "priority": 1}),
            ("/v2/rerank", {**documents, "model": reranker, "top_n": 1, "max_tokens_per_doc": 4096}),
        ],
        "voyage": [
            ("/voyage/v1/embeddings", {"input": texts, "model": model, "input_type": None, "truncation": True, **more}),
            ("/voyage/v1/rerank", {**documents, "model": reranker, "top_k": 2, "return_documents": True}),
        ],
        "jina": [
            ("/jina/v1/embeddings", {"input": [{"text": text}], "model": model, "task": "retrieval.query"}),
            ("/jina/v1/rerank", {"query": text, "documents": [text, {"text": text}], "model": reranker}),
        ],
        "tei": [
            ("/embed", {**tei, "model": model}),
            ("/", {"inputs": text, "prompt_name": "query"}),
            ("/rerank", {"query": text, "texts": texts, "raw_scores": False, "return_text": True}),
            ("/similarity", {"inputs": {"source_sentence": text, "sentences": texts}, "parameters": {}}),
        ],
        "ollama": [
            ("/api/embed", {**ollama, "truncate": False, "dimensions": 8}),
            ("/api/embeddings", {"model": model, "prompt": text}),
            ("/api/show", {"model": f"{model}:latest"}),
        ],
    }


def draw(seed, number, bodies):
    """Return the path, the bytes and the mark of a body; equal for equal arguments."""
    rng = random.Random(f"{seed} {number}")
    mark = f"zqmark{number}zq"
    path, body = copy.deepcopy(rng.choice(bodies))
    body = json.loads(json.dumps(body).replace("TEXT", mark))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        body = _mutate(rng, body)
    written = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.25:
        written = _damage(rng, written)
    return path, written[:_MOST_BYTES], mark


def _mutate(rng, body):
    """Return a body with one change at a random place."""
    if rng.random() < 0.03:
        return _value(rng)
    if not isinstance(body, (dict, list)) or not body:
        return body
    key = rng.choice(list(body)) if isinstance(body, dict) else rng.randrange(len(body))
    if isinstance(body[key], (dict, list)) and rng.random() < 0.5:
        body[key] = _mutate(rng, body[key])
        return body
    change = rng.choice(("value", "value", "value", "remove", "add", "wrap", "repeat"))
    if change == "value":
        body[key] = _value(rng)
    elif change == "remove":
        del body[key]
    elif change == "wrap":
        body[key] = rng.choice(([body[key]], {"text": body[key]}, [[body[key]]]))
    elif change == "repeat" and isinstance(body[key], (str, list)):
        body[key] = body[key] * rng.choice((2, 50, 3000))
    elif isinstance(body, dict):
        body[rng.choice(("input", "texts", "model", "", "é\n", "x" * 300, key + "s"))] = _value(rng)
    else:
        body.append(_value(rng))
    return body


def _value(rng, depth=0):
    """Return a random JSON value, often an unusual one."""
    if depth < 3 and rng.random() < 0.2:
        values = [_value(rng, depth + 1) for _ in range(rng.randrange(5))]
        return values if rng.random() < 0.5 else {str(number): value for number, value in enumerate(values)}
    return rng.choice(
        (
            *(None, True, False, 0, 1, -1, 8, 8.0, 0.5, -0.0, 1e308, 2**31, 2**63, 2**64, 10**30, 1e-320),
            *("", " ", "\x00", "\u001d", "a", "auto", "8", "true", "null", "NaN", "é" * 100, "\ud83d\ude00", "\u202e"),
            *("query", "document", "float", "int8", "@other/docs", "../../etc/passwd", "hf:owner/name", "/etc"),
            *("x" * 600, "word " * 700, "<script>", "%s%n", "{{7*7}}", "a\r\nset-cookie: b"),
        )
    )


def _damage(rng, written):
    """Return bytes that are mostly not valid JSON."""
    place = rng.randrange(len(written) + 1)
    kind = rng.choice(_DAMAGES)
    return {
        "cut": written[:place],
        "bytes": written[:place] + rng.randbytes(rng.randrange(1, 8)) + written[place:],
        "random": rng.randbytes(rng.randrange(200)),
        "twice": written[:-1] + b"," + written[1:],
        "deep": b"[" * rng.choice((100, 5_000, 100_000)),
        "case": written.swapcase(),
        "surrogate": written.replace(b"zqmark", b"\\ud800zqmark", 1),
        "number": re.sub(rb": ?\d+", b": " + b"9" * rng.choice((20, 400, 5000)), written, count=1),
        "nan": re.sub(rb": ?\d+", rng.choice((b": NaN", b": -Infinity", b": 1e999")), written, count=1),
        "bom": b"\xef\xbb\xbf" + written,
        "nothing": b"",
    }[kind]
