"""Measure retrieval over documentation: ways of chunking, headings before chunks, keywords and fusion.

Usage: python benchmarks/retrieval.py --docs FOLDER CHUNKS.jsonl... [--known 240] [--misses NAME] [--variants]

FOLDER has reStructuredText sources, here the Python documentation. Each CHUNKS.jsonl is an output of
`retrieval_chunks.py` for this folder. Two sets of questions: those in `retrieval_questions.jsonl`, written by hand in a
user's words, and known-item questions, half headings and half first sentences of sections; their text is removed
from the chunks in which it stands, but not from the headings before later chunks of the section.

A hit is right if it is of a section that answers: it has at least one line of the section's body, so a heading alone is
never right. recall@5 is the share of questions with such a hit among 5, MRR@10 the mean of 1 / its rank, and nDCG@10
that of 1 / log2(1 + its rank).
"""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path

import numpy as np

from embedway import Embedder
from embedway.collections import keyword_index as index
from embedway.collections.fusion import fused_by_ranks, fused_by_scores
from embedway.collections.keyword_tokens import identifiers, query_tokens
from keywords import plain_lists
from retrieval_chunks import MODEL, documents
from retrieval_sections import find, known_items, sections

#: Rows of each list that are fused.
CANDIDATES = 50
HERE = Path(__file__).parent


class Chunks:
    """Chunks of one way of chunking, and their vectors."""

    def __init__(self, path, embedder):
        self.rows = [json.loads(line) for line in path.read_text().splitlines()]
        self.embedder = embedder
        self.by_file = {}
        for number, row in enumerate(self.rows):
            self.by_file.setdefault(row["file"], []).append(number)

    def vectors(self, texts, **options):
        return np.concatenate(
            [
                self.embedder.embed(texts[at : at + 2048], model=MODEL, **options).vectors
                for at in range(0, len(texts), 2048)
            ]
        )

    def matrix(self, *, has_context):
        return self.vectors([sent(row["context"] if has_context else "", row["text"]) for row in self.rows])

    def right(self, answers):
        """Return the chunks that have a line of a body of these sections: (file, first line, line after the last)."""
        return {
            number
            for file, body, end, blank in answers
            for number in self.by_file.get(file, ())
            if any(
                n not in blank
                for n in range(max(self.rows[number]["first"], body), min(self.rows[number]["last"] + 1, end))
            )
        }

    def without(self, questions):
        """Return rows without the texts of known-item questions, and the numbers of those that changed."""
        rows, changed = [dict(row) for row in self.rows], set()
        for text, answers in questions:
            for file, first, end, _ in answers:
                for number in self.by_file.get(file, ()):
                    row = rows[number]
                    if row["first"] < end and row["last"] >= first - 3 and (short := removed(row["text"], text)):
                        rows[number]["text"] = short
                        changed.add(number)
        return rows, changed


def sent(context, text):
    return f"{context}\n\n{text}" if context else text


def removed(text, question):
    """Return a text without a question's words where they stand, in any markup; None if they do not, or alone do."""
    words = [(at, at + len(word)) for at, word in _words(plain_markup(text))]
    values = [word for _, word in _words(plain_markup(text))]
    wanted = [word for _, word in _words(question)]
    for at in range(len(values) - len(wanted) + 1):
        if values[at : at + len(wanted)] == wanted:
            short = text[: words[at][0]] + text[words[at + len(wanted) - 1][1] :]
            return short if any(map(str.isalnum, short)) else None
    return None


def plain_markup(text):
    """Return a text of the same length in which roles such as `:func:` are blank."""
    import re

    return re.sub(r":[\w:+-]+:(?=`)", lambda m: " " * len(m[0]), text)


def _words(text):
    import re

    return [(m.start(), m[0].casefold()) for m in re.finditer(r"[^\W_]+", text)]


def keyword_lists(rows, questions, weights):
    """Return for each question its rows and their scores by BM25, and those that contain an identifier of it."""
    with tempfile.TemporaryDirectory() as folder, index.opened(Path(folder) / "index.sqlite") as connection:
        with index.transaction(connection):
            index.add(
                connection,
                (
                    index.IndexRow(str(n), "f", (row["headings"], row["text"], row["file"]))
                    for n, row in enumerate(rows)
                ),
            )
        total, found = len(rows), []
        for question in questions:
            known = {t: n for t, n in index.frequencies(connection, query_tokens(question)).items() if n}
            telling = [t for t, n in known.items() if n <= index.MAX_SHARE * total] or list(known)
            names = [t for t in identifiers(question) if t in telling]
            listed = [(int(i), score) for i, score in index.find(connection, telling, CANDIDATES, weights)]
            named = {int(i): score for i, score in index.find(connection, names, CANDIDATES, weights)}
            found.append((listed, [(i, named[i]) for i, _ in listed if i in named]))
        return found


def scores(ranked, right):
    """Return recall@5, MRR@10 and nDCG@10 of each question."""
    made = []
    for one, good in zip(ranked, right, strict=True):
        rank = next((n for n, i in enumerate(one[:10], 1) if i in good), None)
        made.append((rank is not None and rank <= 5, 1 / rank if rank else 0, 1 / math.log2(1 + rank) if rank else 0))
    return np.array(made, float)


def nearest(matrix, asked):
    """Return for each question its rows and their cosines."""
    found = []
    for one in asked:
        cosines = matrix @ one
        found.append([(int(n), float(cosines[n])) for n in np.argsort(-cosines, kind="stable")[:CANDIDATES]])
    return found


def hybrid(by_vector, by_keyword, fusion=fused_by_scores):
    return [list(fusion((v, *found))) for v, found in zip(by_vector, by_keyword, strict=True)]


def merged(rows, ranked):
    """Return each list without the rows beside a better one under the same headings, as `search` does by default."""
    found = []
    for one in ranked:
        kept = {}
        for n in one:
            place = rows[n]["file"], rows[n]["headings"]
            if place not in (kept.get(n - 1), kept.get(n + 1)):
                kept[n] = place
        found.append(list(kept))
    return found


class Report:
    """Table of scores, for all questions and for each kind."""

    def __init__(self, name, kinds):
        self.kinds = kinds
        self.names = sorted(set(kinds))
        print(f"\n{name}: {len(kinds)} questions")
        print("| | recall@5 | MRR@10 | nDCG@10 | " + " | ".join(f"{k}: recall@5" for k in self.names) + " |")
        print("| --- |" + " ---: |" * (3 + len(self.names)))

    def line(self, name, ranked, right):
        values = scores(ranked, right)
        means = [*values.mean(0), *(values[[k == one for k in self.kinds], 0].mean() for one in self.names)]
        print(f"| {name} | " + " | ".join(f"{v:.3f}" for v in means) + " |", flush=True)
        return values


def located(sources):
    """Return a function that finds the answers of a question: (file, first line of the body, end, blank lines)."""
    made, blanks = {}, {}

    def answer(file, one):
        if file not in blanks:
            lines = sources[file].split("\n")
            blanks[file] = {n for n, line in enumerate(lines, 1) if not any(map(str.isalnum, line))}
        # A definition without a body is its signature.
        return file, one.body if one.body < one.end else one.start, one.end, blanks[file]

    def search(file, name):
        if file not in made:
            made[file] = sections(sources[file])
        return [answer(file, one) for one in find(made[file], name)]

    return answer, search


def measure(path, embedder, sets, options):
    chunks = Chunks(path, embedder)
    tokens = [row["tokens"] for row in chunks.rows]
    alone = sum(row["alone"] for row in chunks.rows)
    fill = statistics.median(tokens) / options.tokens
    shape = f"{len(tokens):,} chunks, median fill {fill:.0%}, {alone} headings or markup alone"
    has_context = any(row["context"] for row in chunks.rows)
    plain_too = has_context and not options.context_only
    ways = [("vectors, no context", False), ("vectors", True)] if plain_too else [("vectors", has_context)]
    for name, questions, kinds, is_known in sets:
        texts = [text for text, _ in questions]
        right = [chunks.right(answers) for _, answers in questions]
        asked = chunks.vectors(texts, input_type="query")
        rows, changed = chunks.without(questions) if is_known else (chunks.rows, set())
        report = Report(f"{path.stem}, {name} ({shape}; {sum(not r for r in right)} without a right chunk)", kinds)
        for label, with_context in ways:
            matrix = chunks.matrix(has_context=with_context)
            if changed:
                numbers = sorted(changed)
                matrix[numbers] = chunks.vectors(
                    [sent(rows[n]["context"] if with_context else "", rows[n]["text"]) for n in numbers]
                )
            by_vector = nearest(matrix, asked)
            report.line(label, plain_lists(by_vector), right)
        report.line(f"{label}, neighbours merged", merged(rows, plain_lists(by_vector)), right)
        by_keyword = keyword_lists(rows, texts, index.COLUMN_WEIGHTS)
        report.line("keywords", plain_lists(listed for listed, _ in by_keyword), right)
        both = hybrid(by_vector, by_keyword)
        report.line("hybrid", both, right)
        report.line("hybrid, neighbours merged", merged(rows, both), right)
        if options.variants:
            variants(report, rows, texts, by_vector, right)
        if options.misses:
            misses(chunks, questions, both if options.misses == "hybrid" else plain_lists(by_vector), right)


def variants(report, rows, texts, by_vector, right):
    """Print other weights of the columns, and fused ranks instead of scores."""
    for columns in ((1.0, 1.0, 1.0), (2.0, 1.0, 0.0), (4.0, 1.0, 1.0)):
        found = keyword_lists(rows, texts, columns)
        report.line(f"keywords {columns}", plain_lists(listed for listed, _ in found), right)
        report.line(f"hybrid {columns}", hybrid(by_vector, found), right)
    found = keyword_lists(rows, texts, index.COLUMN_WEIGHTS)
    for k in (10, 20, 60):
        ranked = hybrid(by_vector, found, lambda lists, k=k: list(fused_by_ranks(lists, k)))
        report.line(f"hybrid, fused ranks, k={k}", ranked, right)


def misses(chunks, questions, ranked, right):
    """Print the questions without a right hit among 5, with their hits."""
    for (text, answers), one, good in zip(questions, ranked, right, strict=True):
        if set(one[:5]) & good:
            continue
        rank = next((n for n, i in enumerate(one, 1) if i in good), None)
        print(f"\n? {text}\n  wanted {[a[:3] for a in answers]}, at rank {rank}")
        for number in one[:5]:
            row = chunks.rows[number]
            print(f"  {row['file']}:{row['first']}-{row['last']} [{row['context']}] {row['text'][:90]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("chunks", type=Path, nargs="+")
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--known", type=int, default=240)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--misses", choices=["vector", "hybrid"])
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--context-only", action="store_true")
    options = parser.parse_args()
    sources = documents(options.docs)
    answer, search = located(sources)
    written = [json.loads(line) for line in (HERE / "retrieval_questions.jsonl").read_text().splitlines()]
    sets = [
        (
            "questions in users' words",
            [(one["question"], [a for pair in one["answers"] for a in search(*pair)]) for one in written],
            [one["kind"] for one in written],
            False,
        )
    ]
    if options.known:
        items = known_items(sources, options.known)
        known = [(text, [answer(file, one)]) for text, file, one, _ in items]
        sets.append(("known items", known, [kind for *_, kind in items], True))
    with Embedder() as embedder:
        for path in options.chunks:
            measure(path, embedder, sets, options)


if __name__ == "__main__":
    main()
