"""Measure keyword and hybrid search: column weights, stemming and fusion, by recall@5 and nDCG@10.

`fused_by_ranks` is reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009, doi 10.1145/1571941.1572114), the
alternative to the fusion of scores.

Usage: python benchmarks/keywords.py FOLDER, where FOLDER has cran.all.1400, cran.qry, cranqrel (the Cranfield
collection) and python-docs-chunks.jsonl.gz. For the Python documentation, 200 questions are made from rows: the
identifier in `.. function:: NAME(` or the like that only this row defines, in a short question.
"""

# ruff: noqa: SLF001  the benchmark varies the settings of the index
import asyncio
import gzip
import json
import math
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from embedway import AsyncEmbedder, Config
from embedway.collections import keyword_index as index
from embedway.collections.fusion import fused_by_ranks, fused_by_scores
from embedway.collections.keyword_tokens import identifiers, query_tokens

GAIN = {1: 4, 2: 3, 3: 2, 4: 1}
IDENTIFIER = re.compile(r"[._]|\d|[a-z][A-Z]")


def cranfield(folder):
    texts = {}
    for part in re.split(r"(?m)^\.I ", (folder / "cran.all.1400").read_text())[1:]:
        number, title, _, _, body = re.split(r"(?m)^\.[TABW]$", part, maxsplit=4)
        texts[int(number)] = (" ".join(title.split()), " ".join(body.split()) or "-")
    queries = [
        " ".join(q.split()) for q in re.findall(r"\.W\n(.*?)(?=\n\.I|\Z)", (folder / "cran.qry").read_text(), re.DOTALL)
    ]
    gains = [{} for _ in queries]
    for line in (folder / "cranqrel").read_text().splitlines():
        query, doc, grade = map(int, line.split()[:3])
        if query <= len(gains) and grade in GAIN:
            gains[query - 1][str(doc)] = GAIN[grade]
    return {str(n): t for n, t in texts.items()}, list(zip(queries, gains, strict=True))


def python_docs(folder):
    rows = [json.loads(line) for line in gzip.open(folder / "python-docs-chunks.jsonl.gz", "rt")]
    texts = {row["id"]: ("", row["text"]) for row in rows}
    forms = ("what does {} do", "how do I use {} with a limit on time", "error when calling {} from another thread")
    defined = {}
    for row in rows:
        for name in re.findall(
            r"^\.\. (?:function|method|class|data|attribute|exception):: ([\w.]+)", row["text"], re.MULTILINE
        ):
            defined.setdefault(name, set()).add(row["id"])
    names = [(name, ids) for name, ids in defined.items() if len(ids) == 1 and IDENTIFIER.search(name)][:200]
    return texts, [(forms[n % 3].format(name), dict.fromkeys(ids, 1)) for n, (name, ids) in enumerate(names)]


def quality(ranked, gains):
    dcg = sum((2 ** gains.get(one, 0) - 1) / math.log2(n + 2) for n, one in enumerate(ranked[:10]))
    best = sum((2**g - 1) / math.log2(n + 2) for n, g in enumerate(sorted(gains.values(), reverse=True)[:10]))
    return dcg / best, len(set(ranked[:5]) & set(gains)) / min(5, len(gains)) if gains else 0


async def vectors(embedder, texts, **options):
    return (await embedder.embed(texts, model="all-MiniLM-L6-v2", **options)).vectors


def report(name, ranked, questions):
    scores = np.array([quality(r, g) for r, (_, g) in zip(ranked, questions, strict=True) if g])
    print(f"  {name:<48} nDCG@10 {scores[:, 0].mean():.3f}  recall@5 {scores[:, 1].mean():.3f}")


def keyword_rankings(texts, questions, tokenizer, weights, share=index.MAX_SHARE):
    index._SCHEMA = tuple(
        s if "VIRTUAL" not in s else re.sub(r'tokenize=".*?"', f'tokenize="{tokenizer}"', s) for s in index._SCHEMA
    )
    with tempfile.TemporaryDirectory() as folder, index.opened(Path(folder) / "i.sqlite") as c:
        with index.transaction(c):
            index.add(c, (index.IndexRow(k, "f", (title, text, "")) for k, (title, text) in texts.items()))
        total, found = index.count(c), []
        for query, _ in questions:
            tokens = {t: n for t, n in index.frequencies(c, query_tokens(query)).items() if n}
            telling = [t for t, n in tokens.items() if n <= share * total] or list(tokens)
            names = [t for t in identifiers(query) if t in telling]
            listed, named = index.find(c, telling, 50, weights), dict(index.find(c, names, 50, weights))
            found.append((listed, [(i, named[i]) for i, _ in listed if i in named]))
        return found


def plain_lists(found):
    return [[row for row, _ in rows] for rows in found]


async def main(folder):
    unstemmed = index._TOKENIZER.removeprefix("porter ")
    async with AsyncEmbedder(config=Config.load()) as embedder:
        for name, (texts, questions) in (
            ("Cranfield", cranfield(folder)),
            ("Python docs, identifiers", python_docs(folder)),
        ):
            print(f"{name}: {len(texts)} rows, {len(questions)} questions")
            ids = list(texts)
            matrix = await vectors(embedder, [". ".join(filter(None, t)) for t in texts.values()])
            asked = await vectors(embedder, [q for q, _ in questions], input_type="query")
            by_vector = [
                [(ids[n], float(matrix[n] @ v)) for n in np.argsort(-(matrix @ v), kind="stable")[:50]] for v in asked
            ]
            report("vector", plain_lists(by_vector), questions)
            for label, tokenizer in (("no stemming", unstemmed), ("porter", index._TOKENIZER)):
                for heading in (1.0, 2.0, 4.0):
                    found = keyword_rankings(texts, questions, tokenizer, (heading, 1.0, 1.0))
                    report(
                        f"keyword, {label}, headings x{heading:g}",
                        plain_lists(listed for listed, _ in found),
                        questions,
                    )
            for share in (0.1, 0.2, 1.0):
                found = keyword_rankings(texts, questions, index._TOKENIZER, (2.0, 1.0, 1.0), share)
                report(
                    f"keyword, porter, tokens in at most {share:g} of rows",
                    plain_lists(listed for listed, _ in found),
                    questions,
                )
            found = keyword_rankings(texts, questions, index._TOKENIZER, (2.0, 1.0, 1.0))
            lists = [(one, *other) for one, other in zip(by_vector, found, strict=True)]
            report("hybrid, fused scores", [list(fused_by_scores(three)) for three in lists], questions)
            report(
                "hybrid, fused scores, no identifiers", [list(fused_by_scores(three[:2])) for three in lists], questions
            )
            for k in (10, 60):
                report(f"hybrid, fused ranks, k={k}", [list(fused_by_ranks(three, k)) for three in lists], questions)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
