"""`run`, `search` and `embed` with the real default model."""

import http.server
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedway.cli.embed import BATCH_LINES
from embedway.providers.fake import vector_of
from tiny_models import tiny_reranker

pytestmark = pytest.mark.usefixtures("with_model")

SPACE = "all-MiniLM-L6-v2@53aa5117/384"
TEXTS = [
    "To run blocking code without stopping the event loop, hand it to a thread.",
    "The bakery on the corner sells rye bread and poppy seed cake.",
    "Glaciers carve valleys as they move slowly downhill.",
    "Interest rates rose for the third time this year.",
]
QUERY = "call a slow function from async code"


@pytest.fixture
def notes(place):
    """Write a JSON Lines file of four short texts."""
    path = place / "notes.jsonl"
    rows = [{"id": f"n{number}", "text": text, "topic": "t"} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make(command, notes, destination):
    """Embed the notes into a collection."""
    assert command("run", notes.name, "--to", destination).code == 0
    return notes.parent / destination


def start(arguments, environment, place, **streams):
    """Start the command in a subprocess, and return it while it runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "embedway", *arguments],
        env=environment,
        cwd=place,
        **(streams or dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)),
    )


def on_terminal(arguments, environment, place):
    """Return the command's output to standard error if that is a terminal."""
    controller, terminal = pty.openpty()
    process = start(arguments, environment, place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(controller, 65536):
            shown += part
    except OSError:
        pass  # on Linux: no process has the terminal open any more
    os.close(controller)
    assert process.wait() == 0, shown
    return shown


def wait_until(happened, process):
    """Poll a condition until it is true; fail if the process ends first, or after 60 s."""
    pause = threading.Event()
    end = time.monotonic() + 60
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < end
        pause.wait(0.02)


class TestRun:
    """`run`: files into a destination."""

    @pytest.mark.parametrize(
        "destination",
        [
            "out.parquet",
            "out.jsonl",
            pytest.param("lancedb:db#notes", marks=pytest.mark.subprocess),
        ],
    )
    def test_then_search_finds_the_right_row(self, command, notes, destination):
        done = command("run", notes.name, "--to", destination, "--json")
        assert done.code == 0, done.stderr
        summary = done.json
        assert (summary["documents"], summary["chunks"], summary["rejected"]) == (4, 4, 0)
        assert summary["space_id"] == SPACE
        assert summary["tokens"] > 4
        found = command("search", destination, QUERY, "--top", "2", "--json")
        assert found.code == 0, found.stderr
        hits = found.json["hits"]
        assert [hit["rank"] for hit in hits] == [1, 2]
        assert hits[0]["text"] == TEXTS[0]
        assert (hits[0]["source"], hits[0]["start_line"]) == ("notes.jsonl", 1)
        assert hits[0]["score"] > hits[1]["score"]
        assert found.json["collection"]["space"]["id"] == SPACE

    def test_then_search_finds_your_own_model_without_its_name(self, command, notes, place):
        own = '[models.m]\nname = "acme/m"\ndimensions = 16\nmax_tokens = 50\n'
        own += '[routes.r]\nmodel = "acme/m"\nprovider = "fake"\n'
        (place / "own.toml").write_text(own)
        done = command("--config", "own.toml", "run", notes.name, "--to", "out.jsonl", "-m", "acme/m")
        assert done.code == 0, done.stderr
        found = command("--config", "own.toml", "search", "out.jsonl", QUERY, "--json")
        assert found.code == 0, found.stderr
        assert found.json["receipt"]["model"] == "acme/m"
        (place / "two.toml").write_text(
            own + own.replace("acme/", "other/").replace(".m]", ".n]").replace(".r]", ".s]")
        )
        assert "name the model" in command("--config", "two.toml", "search", "out.jsonl", QUERY).stderr

    def test_a_reranker_orders_what_was_found(self, command, notes, place, weights_folder):
        assert command("run", notes.name, "--to", "out.parquet").code == 0
        tokenizer = next(weights_folder.glob("models/*/*/tokenizer.json"))
        tiny_reranker(place / "reranker", tokenizer)
        done = command("search", "out.parquet", QUERY, "--rerank", "./reranker", "--top", "3", "--json")
        assert done.code == 0, done.stderr
        hits = done.json["hits"]
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        plain = command("search", "out.parquet", QUERY, "--top", "4", "--json").json["hits"]
        similarities = {hit["id"]: hit["vector_score"] for hit in plain}
        assert [similarities[hit["id"]] for hit in hits] == pytest.approx([hit["similarity"] for hit in hits])
        assert (done.json["rerank"]["candidates"], len(hits)) == (4, 3)
        assert done.json["rerank"]["receipt"]["model"] == "reranker"
        shown = command("search", "out.parquet", QUERY, "--rerank", "./reranker", "-n", "2", "--candidates", "2")
        assert "2 reranked by reranker" in shown.stderr
        assert len(shown.stdout.splitlines()) == 1 + 2
        done = command("search", "out.parquet", QUERY, "--rerank", "all-MiniLM-L6-v2")
        assert done.code == 2
        assert "returns vectors and does not score pairs" in done.stderr

    def test_summary_and_answer_are_tables(self, command, notes):
        done = command("run", notes.name, "--to", "out.parquet")
        assert done.code == 0
        for word in ("out.parquet", SPACE, "texts/s", "tokens/s", "runtime", "speed excludes it"):
            assert word in done.stdout
        found = command("search", "out.parquet", QUERY)
        header, first, *_ = found.stdout.splitlines()
        assert header.split() == ["rank", "score", "where", "text"]
        assert "notes.jsonl:1" in first
        assert TEXTS[0] in first

    def test_reads_standard_input_folders_and_columns(self, command, notes, place):
        done = command("run", "-", "--to", "lines.jsonl", "--json", stdin="\n".join(TEXTS))
        assert (done.code, done.json["chunks"]) == (0, 4)
        (place / "docs").mkdir()
        (place / "docs/a.md").write_text("# Threads\n\n" + TEXTS[0] + "\n")
        done = command("run", "docs", notes.name, "--to", "both.parquet", "--keep", "topic", "--json")
        assert (done.code, done.json["documents"]) == (0, 5)
        table = pq.read_table(place / "both.parquet")
        assert sorted(table["topic"].to_pylist(), key=str) == [None, "t", "t", "t", "t"]

    def test_links_in_a_folder_are_followed_on_request(self, command, place):
        (place / "docs").mkdir()
        (place / "docs/a.md").write_text(TEXTS[0])
        (place / "other.txt").write_text(TEXTS[1])
        (place / "docs/b.txt").symlink_to("../other.txt")
        note = "1 file skipped: 1 link (--follow-links follows links"
        done = command("run", "docs", "--to", "a.jsonl", "--json")
        assert (done.json["documents"], done.json["links_skipped"]) == (1, 1)
        assert note in done.stderr
        planned = command("plan", "docs", "--json")
        assert (planned.json["documents"], planned.json["links_skipped"]) == (1, 1)
        assert note in planned.stderr
        named = command("plan", "docs", "-v").stderr
        assert "skipped docs/b.txt: link" in named
        assert "-v names" not in named
        done = command("run", "docs", "--follow-links", "--to", "b.jsonl", "--json")
        assert (done.json["documents"], done.json["links_skipped"]) == (2, 0)
        assert "link" not in done.stderr
        assert command("plan", "docs", "--follow-links", "--json").json["documents"] == 2

    def test_chunks_are_as_long_as_asked(self, command, place):
        (place / "long.txt").write_text(" ".join(f"Sentence number {n} is here." for n in range(200)))
        few = command("run", "long.txt", "--to", "few.jsonl", "--json").json["chunks"]
        many = command("run", "long.txt", "--to", "many.jsonl", "--chunk-tokens", "40", "--json").json["chunks"]
        whole = command("run", "long.txt", "--to", "whole.jsonl", "--no-chunk", "--json").json
        assert 1 < few < many
        assert (whole["chunks"], whole["truncated"]) == (1, 1)

    def test_bad_row_stops_with_file_and_line_and_leaves_nothing(self, command, notes, place):
        notes.write_text(notes.read_text() + "not json\n")
        done = command("run", notes.name, "--to", "out.parquet", "--json")
        assert (done.code, done.stdout) == (1, "")
        assert "notes.jsonl:5: is not JSON" in done.stderr
        assert sorted(path.name for path in place.iterdir()) == ["notes.jsonl"]

    def test_bad_rows_can_be_skipped_and_exit_4(self, command, notes, place):
        notes.write_text(notes.read_text() + 'not json\n{"text": ""}\n')
        done = command("run", notes.name, "--to", "out.parquet", "--on-error", "skip", "--json")
        assert done.code == 4
        assert (done.json["chunks"], done.json["rejected"]) == (4, 2)
        rejects = [json.loads(line) for line in (place / "out.parquet.rejects.jsonl").read_text().splitlines()]
        assert [row["line"] for row in rejects] == [5, 6]
        assert "2 rows or files were rejected; the reasons are in out.parquet.rejects.jsonl" in done.stderr

    def test_settings_file_and_flags(self, command, notes, place):
        (place / "a.toml").write_text("[run]\non_error = 'skip'\nchunk_tokens = 64\n[local]\nthreads = 1\n")
        notes.write_text(notes.read_text() + "not json\n")
        assert command("--config", "a.toml", "run", notes.name, "--to", "a.parquet").code == 4
        assert command("-c", "a.toml", "run", notes.name, "--to", "b.parquet", "--on-error", "stop").code == 1
        # --no-chunk overrides a chunk size from a file.
        assert command("-c", "a.toml", "run", notes.name, "--to", "c.parquet", "--no-chunk").code == 4

    def test_does_not_overwrite_unless_told(self, command, notes, place):
        (place / "out.jsonl").write_text("mine")
        done = command("run", notes.name, "--to", "out.jsonl")
        assert done.code == 1
        assert "already exists" in done.stderr
        assert (place / "out.jsonl").read_text() == "mine"
        assert command("run", notes.name, "--to", "out.jsonl", "--overwrite").code == 0

    def test_progress_only_on_a_terminal(self, command, environment, notes, place):
        assert "texts/s" not in command("run", notes.name, "--to", "a.jsonl").stderr
        shown = on_terminal(["run", notes.name, "--to", "b.jsonl"], environment, place)
        assert b"texts/s" in shown
        assert b"tokens/s" in shown
        assert b"texts/s" not in on_terminal(["-q", "run", notes.name, "--to", "c.jsonl"], environment, place)

    def test_ctrl_c_ends_it_with_130_and_nothing_left(self, environment, place):
        with start(["run", "-", "--to", "out.jsonl"], environment, place) as process:
            process.stdin.write(b"a line\n")
            process.stdin.flush()
            wait_until(lambda: any(place.iterdir()), process)
            process.send_signal(signal.SIGINT)
            # Standard input stays open: a thread that reads it must not keep the command alive.
            assert process.wait(30) == 130
            errors = process.stderr.read()
            assert b"Traceback" not in errors
            assert b"Fatal" not in errors
        assert list(place.iterdir()) == []


class TestSearch:
    """`search`: refused inputs."""

    def test_a_model_of_another_space_is_refused_by_name(self, command, notes, place):
        make(command, notes, "out.parquet")
        assert command("search", "out.parquet", QUERY, "--model", "all-MiniLM-L6-v2").code == 0
        # The same weights with other pooling: the same number of dimensions, but another space.
        here = command("models", "pull", "all-MiniLM-L6-v2", "--json").json["pulled"][0]["path"]
        other = place / "other-model"
        shutil.copytree(here, other, copy_function=lambda a, b: Path(b).symlink_to(Path(a).resolve()))
        pooling = other / "1_Pooling/config.json"
        settings = json.loads(pooling.read_text())
        pooling.unlink()
        swapped = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
        pooling.write_text(json.dumps(settings | swapped))
        done = command("search", "out.parquet", QUERY, "--model", "./other-model", "--json")
        assert (done.code, done.stdout) == (1, "")
        assert f"out.parquet contains vectors of the space {SPACE}" in done.stderr
        assert re.search(r"would be of the space all-MiniLM-L6-v2@(?!53aa5117)[0-9a-f]{8}/384", done.stderr)

    def test_another_model_of_the_catalog_is_refused_before_it_is_downloaded(self, command, notes):
        make(command, notes, "out.parquet")
        done = command("search", "out.parquet", QUERY, "--model", "BAAI/bge-small-en-v1.5")
        assert (done.code, done.stdout) == (1, "")
        assert f"out.parquet contains vectors of the space {SPACE}" in done.stderr
        assert "the query would be of the space BAAI/bge-small-en-v1.5" in done.stderr
        assert "Tried" not in done.stderr

    def test_what_is_no_collection(self, command, notes, place):
        assert "there is no such file" in command("search", "none.parquet", QUERY).stderr
        table = pq.read_table(make(command, notes, "a.parquet")).replace_schema_metadata({})
        pq.write_table(table, place / "b.parquet")
        done = command("search", "b.parquet", QUERY)
        assert done.code == 1
        assert "has no record of its vector space" in done.stderr

    def test_an_empty_query_is_an_error(self, command, notes):
        make(command, notes, "a.parquet")
        done = command("search", "a.parquet", "")
        assert (done.code, done.stdout) == (2, "")


class TestEmbed:
    """`embed`: vectors on standard output."""

    def test_lines(self, command):
        done = command("embed", *TEXTS)
        assert done.code == 0, done.stderr
        assert [line["index"] for line in done.lines] == [0, 1, 2, 3]
        vectors = np.array([line["embedding"] for line in done.lines], dtype=np.float32)
        assert vectors.shape == (4, 384)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)

    def test_document_holds_space_receipt_and_the_same_vectors(self, command):
        document = command("embed", *TEXTS, "--json").json
        assert document["space"]["id"] == SPACE
        assert document["receipt"]["texts"] == 4
        assert document["receipt"]["tokens"] > 0
        lines = np.array([line["embedding"] for line in command("embed", *TEXTS).lines])
        assert np.allclose(document["embeddings"], lines, atol=1e-6)

    @pytest.mark.subprocess
    def test_standard_input_in_windows_keeps_order_and_numbers(self, command):
        texts = [f"{TEXTS[number % 4]} {number}" for number in range(1500)]
        done = command("embed", "-", stdin="\r\n".join(texts))
        assert [line["index"] for line in done.lines] == list(range(1500))
        some = command("embed", texts[0], texts[1499]).lines
        for number, line in ((0, some[0]), (1499, some[1])):
            a, b = np.array(done.lines[number]["embedding"]), np.array(line["embedding"])
            assert a @ b >= 0.9999

    def test_bad_line_is_named_by_its_number(self, command):
        done = command("embed", "-", stdin=b"fine\n\xff\n")
        assert done.code == 1
        assert "standard input:2: is not UTF-8" in done.stderr
        done = command("embed", "-", stdin="fine\n\nfine\n")
        assert done.code == 1
        assert "standard input:2: " in done.stderr

    def test_cut_texts_are_told(self, command):
        long = "word " * 2000
        done = command("embed", "short", long)
        assert [line.get("truncated") for line in done.lines] == [None, True]
        assert "1 text was truncated at the model's limit" in done.stderr
        done = command("embed", "short", long, "--on-overflow", "error")
        assert (done.code, done.stdout) == (1, "")
        assert "word" not in done.stderr

    def test_dimensions_that_the_model_was_not_trained_for(self, command):
        done = command("embed", "x", "--dimensions", "100")
        assert (done.code, done.stdout) == (2, "")
        assert "384" in done.stderr

    def test_unknown_model(self, command):
        done = command("embed", "x", "--model", "all-minilm-l6-v3")
        assert done.code == 1
        assert "all-MiniLM-L6-v2" in done.stderr

    def test_ctrl_c_while_waiting_for_input(self, environment, place):
        with start(["embed", "-"], environment, place) as process:
            process.stdin.write(b"a line\n" * BATCH_LINES)
            process.stdin.flush()
            for _ in range(BATCH_LINES):
                assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            errors = process.stderr.read()
            assert b"Traceback" not in errors
            assert b"Fatal" not in errors


class TestNotes:
    """Notes of receipts: logged once to standard error, and in JSON documents."""

    NOTE = (
        "routes.r answers without index; its vectors belong to the texts by position, after a probe of its order; its "
        "requests have at most 16 texts, as the probe"
    )

    @pytest.fixture
    def unindexed(self, own_settings, place):
        """Return a command whose settings name a model on a server that leaves out the index."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = {"data": [{"embedding": vector_of(text, 16).tolist()} for text in body["input"]]}
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            (place / "embedway.toml").write_text(
                '[models.m]\nname = "acme/m"\ndimensions = 16\nmax_tokens = 50\n'
                '[routes.r]\nmodel = "acme/m"\nprovider = "openai-compatible"\n'
                f'base_url = "http://127.0.0.1:{server.server_port}/v1"\noptions.max_inputs = "1000"\n'
            )
            try:
                yield own_settings
            finally:
                server.shutdown()
                thread.join()

    def test_embed(self, unindexed):
        done = unindexed("embed", *TEXTS, "--model", "acme/m")
        assert done.stderr.count(self.NOTE) == 1, done.stderr
        lines = "\n".join(f"line {n}" for n in range(BATCH_LINES + 10))
        done = unindexed("embed", "-", "--model", "acme/m", stdin=lines)
        assert (done.code, done.stderr.count(self.NOTE)) == (0, 1)
        done = unindexed("embed", "not in", "the cache", "--model", "acme/m", "--json")
        assert done.json["receipt"]["notes"] == [self.NOTE]

    def test_run_and_search(self, unindexed, notes):
        done = unindexed("run", notes.name, "--to", "out.jsonl", "--model", "acme/m")
        assert done.stderr.count(self.NOTE) == 1, done.stderr
        notes.write_text(notes.read_text().replace("To run", "When running"))
        notes.write_text(notes.read_text().replace("Glaciers", "The glaciers"))
        done = unindexed("run", notes.name, "--to", "other.jsonl", "--model", "acme/m", "--json")
        assert done.json["notes"] == [self.NOTE]
        found = unindexed("search", "out.jsonl", QUERY, "--json")
        assert found.json["receipt"]["notes"] == []  # one text has one position
