"""Complete jobs, with an embedder whose vectors depend on the text."""

import asyncio
import io
import json
import os
import re
import signal
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedway import Config
from embedway.collections import chunk_reader, lines
from embedway.collections.chunk_reader import ChunkReader
from embedway.collections.chunks import join_context
from embedway.collections.journal import Journal, journal_path
from embedway.collections.parsers import html
from embedway.collections.parsers.base import ParsedText
from embedway.collections.run import RunOptions, run_job
from embedway.collections.stores import open_store
from embedway.collections.stores.parquet import ParquetStore
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    InputError,
    NoRouteError,
    RateLimitedError,
    RefusedInputError,
    SinkError,
    SourceError,
    SpaceMismatchError,
    UnavailableError,
    UsageError,
    of_row,
)
from memory_store import MemoryStore

#: Errors of a service for one text.
OF_A_TEXT = {
    "refused": RefusedInputError("the service refused the request", route="r", status=400),
    "failing": UnavailableError("the service failed", route="r", status=500, billed=True),
    "invalid": BadVectorsError("answered with vectors of zeros", route="r"),
    "failing on all routes": NoRouteError("m", failed=[("r", "the service failed"), ("s", "the service failed")]),
}


@pytest.fixture
def rows_file(tmp_path):
    """Make a JSON Lines file with that many rows in a folder of its own."""

    def make(count, text="the event loop of row {}"):
        path = tmp_path / "sources" / "rows.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({"id": n, "text": text.format(n)}) + "\n" for n in range(count)))
        return str(path)

    return make


@pytest.fixture
def out(tmp_path):
    """Empty folder for destinations."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 4)
    monkeypatch.setattr(chunk_reader, "MAX_BATCH_CHUNKS", 16)


def run(embedder, sources, destination, options=None, **more):
    return asyncio.run(run_job(embedder, sources, str(destination), options or RunOptions(), **more))


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("form", ["parquet", "jsonl", "lancedb"])
def test_every_row_has_the_vector_of_its_own_text(fake_embedder, vectors_for, rows_file, out, form):
    destination = f"lancedb:{out}#rows" if form == "lancedb" else str(out / f"rows.{form}")
    embedder = fake_embedder()
    summary = run(embedder, [rows_file(101)], destination)
    collection = open_store(destination)
    assert collection.space == embedder.space
    assert (summary.chunks, summary.documents, collection.count) == (101, 101, 101)
    texts = [f"the event loop of row {n}" for n in range(101)]
    for n, vector in enumerate(vectors_for(texts)):
        hit = collection.search(vector, 1)[0]
        assert (hit.id, hit.text, hit.start_line) == (f"rows.jsonl/{n}#0", texts[n], n + 1)
        assert hit.score == pytest.approx(1.0, abs=1e-5)
    assert embedder.calls[:3] == [4, 8, 16]
    assert sum(embedder.calls) == 101
    assert max(embedder.calls) == 16


@pytest.mark.usefixtures("small_batches")
def test_rows_keep_the_order_of_the_sources(fake_embedder, vectors_for, tmp_path, out):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("b.md", "a.py", "c.txt"):
        (folder / name).write_text("\n\n".join(f"{name} part {n} of the event loop" for n in range(30)))
    summary = run(fake_embedder(), [str(folder)], out / "o.parquet", RunOptions(chunk_tokens=48))
    table = pq.read_table(out / "o.parquet")
    sources = table["document_id"].to_pylist()
    assert sources == sorted(sources)
    assert summary.documents == 3
    assert summary.chunks == table.num_rows > 30
    lines = table["start_line"].to_pylist()
    for source in set(sources):
        own = [line for line, other in zip(lines, sources, strict=True) if other == source]
        assert own == sorted(own)
    texts = [
        join_context(context, text)
        for context, text in zip(*table.select(["context", "text"]).to_pydict().values(), strict=True)
    ]
    assert np.allclose(np.array(table["vector"].to_pylist()), vectors_for(texts))
    chunking = open_store(str(out / "o.parquet")).record.chunking
    assert (chunking.chunk_tokens, chunking.overlap_tokens) == (48, 11)


def test_the_summary_and_the_progress(fake_embedder, rows_file, out, monkeypatch):
    monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 50)
    monkeypatch.setattr(chunk_reader, "MAX_BATCH_CHUNKS", 50)
    monkeypatch.setattr(lines, "HEAD_BYTES", 64)
    ticks = iter(range(1000))
    seen = []

    class Progress:
        def update(self, status):
            seen.append(status)

    summary = run(fake_embedder(), [rows_file(100)], out / "o.jsonl", progress=Progress(), clock=lambda: next(ticks))
    assert [(status.documents, status.chunks_done) for status in seen] == [(50, 50), (100, 100)]
    assert seen[-1].tokens == summary.tokens > 100
    assert seen[-1].bytes_read == seen[-1].bytes_total
    assert seen[0].seconds_left == pytest.approx(1.0, abs=0.1)
    assert seen[-1].seconds_left == 0
    # The clock is read at the start, around each of two batches, and at the end.
    assert summary.seconds == 5
    assert summary.texts_per_s == pytest.approx(100 / 3)
    assert summary.tokens_per_s == pytest.approx(summary.tokens / 3)
    assert json.loads(json.dumps(summary.to_json()))["space_id"] == summary.space_id
    assert (summary.rejected, summary.rejects_path, summary.truncated) == (0, None, 0)


def test_standard_input_has_no_time_left(fake_embedder, out):
    seen = []

    class Progress:
        def update(self, status):
            seen.append(status)

    lines = io.BytesIO(b"one\ntwo\n")
    run(fake_embedder(), ["-"], out / "o.jsonl", progress=Progress(), standard_input=lines)
    assert [(status.bytes_total, status.seconds_left, status.chunks_done) for status in seen] == [(None, None, 2)]


def test_documents_that_are_not_cut_are_truncated_and_counted(fake_embedder, rows_file, out):
    source = rows_file(5, "run {} " + "the event loop " * 40)
    summary = run(fake_embedder(), [source], out / "o.parquet", RunOptions(chunk=False))
    assert (summary.chunks, summary.truncated) == (5, 5)
    cut = run(fake_embedder(), [source], out / "p.parquet")
    assert cut.chunks > 5
    assert cut.truncated == 0
    with pytest.raises(UsageError, match="cannot be used with chunk=False"):
        RunOptions(chunk=False, chunk_tokens=20)


def test_a_document_prompt_leaves_room(fake_embedder, rows_file, out):
    embedder = fake_embedder(prompt="the passage is this: ")
    run(embedder, [rows_file(3, "{} " + "the event loop " * 40)], out / "o.parquet")
    texts = pq.read_table(out / "o.parquet")["text"].to_pylist()
    assert max(len(embedder.tokenizer.encode(embedder.prompt + text).ids) for text in texts) <= 64


def test_kept_columns_go_along(fake_embedder, out, tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("text,topic,n\none,x,1\ntwo,,2\n")
    run(fake_embedder(), [str(source)], out / "o.parquet", RunOptions(keep=("topic", "n")))
    table = pq.read_table(out / "o.parquet")
    assert table.select(["topic", "n"]).to_pylist() == [{"topic": "x", "n": "1"}, {"topic": "", "n": "2"}]


class TestBadRows:
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        path.write_text('{"text": "a private thing"}\nnonsense of a private kind\n{"text": ""}\n{"text": "b"}\n')
        return str(path)

    def test_stop_with_file_and_line_and_leave_nothing(self, fake_embedder, source, out):
        with pytest.raises(SourceError, match=r"rows\.jsonl:2: is not JSON"):
            run(fake_embedder(), [source], out / "o.parquet")
        assert list(out.iterdir()) == []

    def test_are_skipped_and_listed(self, fake_embedder, source, out):
        summary = run(fake_embedder(), [source], out / "o.parquet", RunOptions(on_error="skip"))
        assert (summary.documents, summary.chunks, summary.rejected) == (2, 2, 2)
        rejects = out / "o.parquet.rejects.jsonl"
        assert summary.rejects_path == str(rejects)
        assert "private" not in rejects.read_text()
        assert [json.loads(line) for line in rejects.read_text().splitlines()] == [
            {
                "source": source,
                "line": 2,
                "field": None,
                "reason": "is not JSON: Expecting value (column 1)",
                "id": None,
                "error": "SourceError",
            },
            {
                "source": source,
                "line": 3,
                "field": "text",
                "reason": "is empty",
                "id": None,
                "error": "SourceError",
            },
        ]
        assert sorted(path.name for path in out.iterdir()) == ["o.parquet", "o.parquet.rejects.jsonl"]

    def test_are_listed_beside_a_table_in_a_new_folder(self, fake_embedder, source, out):
        destination = f"lancedb:{out / 'new' / 'db'}#rows"
        with pytest.raises(SourceError):
            run(fake_embedder(), [source], destination)
        assert not (out / "new" / "db").exists()
        run(fake_embedder(), [source], destination, RunOptions(on_error="skip"))
        names = sorted(path.name for path in (out / "new" / "db").iterdir())
        assert names == ["rows.lance", "rows.rejects.jsonl"]

    def test_of_an_earlier_run_are_gone_after_a_clean_one(self, fake_embedder, source, rows_file, out):
        run(fake_embedder(), [source], out / "o.parquet", RunOptions(on_error="skip"))
        run(fake_embedder(), [rows_file(2)], out / "o.parquet", RunOptions(overwrite=True))
        assert [path.name for path in out.iterdir()] == ["o.parquet"]

    def test_only_bad_rows_are_an_error(self, fake_embedder, tmp_path, out):
        source = tmp_path / "rows.jsonl"
        source.write_text("no\nno\n")
        with pytest.raises(
            SourceError, match=r"nothing to embed; 2 rows were rejected, the first: .*rows\.jsonl:1: \w"
        ):
            run(fake_embedder(), [str(source)], out / "o.parquet", RunOptions(on_error="skip"))
        assert list(out.iterdir()) == []


class TestRefusedBeforeAnythingIsEmbedded:
    def check(self, embedder, error, match, *args):
        with pytest.raises(error, match=match):
            run(embedder, *args)
        assert embedder.calls == []

    def test_destinations(self, fake_embedder, rows_file, out):
        source = rows_file(3)
        (out / "there.parquet").write_text("x")
        for name, error, match in (
            ("there.parquet", SinkError, "already exists"),
            ("missing/o.parquet", SinkError, "does not exist"),
            ("o.txt", UsageError, "is not the name of a collection"),
        ):
            self.check(fake_embedder(), error, match, [source], out / name)
        assert [path.name for path in out.iterdir()] == ["there.parquet"]

    def test_sources(self, fake_embedder, rows_file, out):
        self.check(fake_embedder(), SourceError, "no such file", [rows_file(1), "nowhere"], out / "o.parquet")
        own = rows_file(3)
        overwrite = RunOptions(overwrite=True)
        self.check(fake_embedder(), UsageError, "is a source and would be overwritten", [own], own, overwrite)
        assert list(out.iterdir()) == []

    def test_limits(self, fake_embedder, rows_file, out):
        options = RunOptions(chunk_tokens=65)
        self.check(fake_embedder(), UsageError, "over the model's limit", [rows_file(1)], out / "o.jsonl", options)


class TestEmbedderFaults:
    @pytest.mark.usefixtures("small_batches")
    def test_leave_nothing(self, fake_embedder, rows_file, out):
        async def fail_later(texts):
            if len(embedder.calls) == 3:
                raise RuntimeError("the model broke")

        embedder = fake_embedder(on_embed=fail_later)
        with pytest.raises(RuntimeError, match="the model broke"):
            run(embedder, [rows_file(100)], out / "o.jsonl")
        assert list(out.iterdir()) == []

    def test_of_one_text_name_its_source(self, fake_embedder, rows_file, out):
        async def refuse(texts):
            return {3: InputError("is odd", row=3)}

        with pytest.raises(SourceError, match=r"rows\.jsonl:4: is odd"):
            run(fake_embedder(on_embed=refuse), [rows_file(10)], out / "o.jsonl")
        assert list(out.iterdir()) == []

    @pytest.mark.usefixtures("small_batches")
    @pytest.mark.parametrize("kind", ["input", "refused"])
    def test_of_single_texts_are_set_aside_and_the_others_written(self, fake_embedder, rows_file, out, kind):
        async def refuse(texts):
            odd = [row for row, text in enumerate(texts) if text.endswith(("row 7", "row 31"))]
            return {
                row: InputError("is odd", row=row) if kind == "input" else RefusedInputError("it is odd", route="r")
                for row in odd
            }

        options = RunOptions(on_error="skip")
        summary = run(fake_embedder(on_embed=refuse), [rows_file(50)], out / "o.jsonl", options)
        assert (summary.chunks, summary.rejected) == (48, 2)
        written = [json.loads(line) for line in (out / "o.jsonl").read_text().splitlines()]
        assert not {"row 7", "row 31"} & {" ".join(row["text"].split()[-2:]) for row in written}
        assert len(written) == 48
        rejects = [json.loads(line) for line in (out / "o.jsonl.rejects.jsonl").read_text().splitlines()]
        assert [row["line"] for row in rejects] == [8, 32]
        assert all("is odd" in row["reason"] for row in rejects)

    @pytest.mark.usefixtures("small_batches")
    @pytest.mark.parametrize("on_error", ["skip", "stop"])
    @pytest.mark.parametrize("kind", sorted(OF_A_TEXT))
    def test_of_a_text_that_a_service_cannot_answer_name_its_line(self, fake_embedder, rows_file, out, kind, on_error):
        async def fail(texts):
            return {row: of_row(OF_A_TEXT[kind], row) for row, text in enumerate(texts) if text.endswith("row 33")}

        embedder, options = fake_embedder(on_embed=fail), RunOptions(on_error=on_error)
        if on_error == "stop":
            with pytest.raises(SourceError, match=r"rows\.jsonl:34: " + re.escape(str(OF_A_TEXT[kind])) + "(\n|$)"):
                run(embedder, [rows_file(50)], out / "o.jsonl", options)
            assert list(out.iterdir()) == []
            return
        summary = run(embedder, [rows_file(50)], out / "o.jsonl", options)
        assert (summary.chunks, summary.rejected) == (49, 1)
        (reject,) = [json.loads(line) for line in (out / "o.jsonl.rejects.jsonl").read_text().splitlines()]
        assert (reject["line"], reject["reason"]) == (34, str(OF_A_TEXT[kind]))
        assert reject["error"] == type(OF_A_TEXT[kind]).__name__
        assert reject["id"] is not None

    @pytest.mark.usefixtures("small_batches")
    @pytest.mark.parametrize("since", [0, 20])
    def test_of_a_service_that_is_down_end_the_job_and_reject_nothing(self, fake_embedder, rows_file, out, since):
        async def fail(texts):
            if any(int(text.split()[-1]) >= since for text in texts):
                return {row: of_row(OF_A_TEXT["failing"], row) for row in range(len(texts))}
            return {}

        with pytest.raises(UnavailableError, match=r"^r: the service failed") as caught:
            run(fake_embedder(on_embed=fail), [rows_file(50)], out / "o.jsonl", RunOptions(on_error="skip"))
        assert list(out.iterdir()) == []
        notes = caught.value.__notes__
        assert "texts was answered, so the service is taken to be at fault and no row is skipped" in notes[0]
        assert bool(notes[1:]) == (since > 0)

    @pytest.mark.usefixtures("small_batches")
    @pytest.mark.parametrize(
        ("cache", "size", "said"),
        [
            ("sqlite", 40, r"\d+ of 40 texts are computed and kept; make the same call again in 8 s"),
            ("sqlite", 500, r"\d+ texts are computed and kept; make the same call again in 8 s"),
            ("none", 40, r"\d+ of 40 texts are computed and kept; make the same call again in 8 s"),
            ("of a model whose vectors depend on the batch", 40, r"\d+ of 40 texts are computed and kept; .*"),
        ],
    )
    def test_that_stop_a_job_say_what_is_kept(self, fake_embedder, rows_file, out, cache, size, said):
        async def limit(texts):
            late = RateLimitedError("the limit is used up", route="r", status=429, retry_after_s=7.5)
            return {row: late for row, text in enumerate(texts) if int(text.split()[-1]) >= 30}

        dependent = cache not in {"sqlite", "none", "memory"}
        config = Config.load(environ={}, overrides={"cache.backend": "sqlite" if dependent else cache})
        embedder = fake_embedder(on_embed=limit, config=config, is_batch_dependent=dependent)
        with pytest.raises(RateLimitedError) as caught:
            run(embedder, [rows_file(size)], out / "o.jsonl")
        notes = getattr(caught.value, "__notes__", [])
        assert [bool(re.fullmatch(said, note)) for note in notes] == [True] * bool(said)

    def test_that_stop_a_job_before_its_first_vector_promise_nothing(self, fake_embedder, rows_file, out):
        async def fail(texts):
            raise OF_A_TEXT["failing"]

        with pytest.raises(UnavailableError) as caught:
            run(fake_embedder(on_embed=fail), [rows_file(5)], out / "o.jsonl")
        assert not hasattr(caught.value, "__notes__")

    def test_of_a_row_have_its_id(self, fake_embedder, tmp_path, out):
        async def refuse(texts):
            return {row: RefusedInputError("it is odd", route="r") for row, text in enumerate(texts) if "odd" in text}

        source = tmp_path / "rows.jsonl"
        rows = [
            {"key": "a", "text": "fine"},
            {"key": 7, "text": "odd"},
            {"key": "c", "text": ""},
            {"key": [], "text": ""},
        ]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = RunOptions(on_error="skip", id_field="key")
        summary = run(fake_embedder(on_embed=refuse), [str(source)], out / "o.jsonl", options)
        rejects = [json.loads(line) for line in (out / "o.jsonl.rejects.jsonl").read_text().splitlines()]
        assert {row["line"]: (row["id"], row["error"]) for row in rejects} == {
            2: ("7", "RefusedInputError"),
            3: ("c", "SourceError"),
            4: (None, "SourceError"),
        }
        assert summary.rejected == 3

    @pytest.mark.parametrize("count", [1, 2])
    def test_of_the_only_text_end_the_job_unless_it_is_refused(self, fake_embedder, rows_file, out, count):
        async def fail(texts):
            return {row: of_row(OF_A_TEXT["failing"], row) for row in range(len(texts))}

        with pytest.raises(UnavailableError):
            run(fake_embedder(on_embed=fail), [rows_file(count)], out / "o.jsonl", RunOptions(on_error="skip"))

    def test_of_the_last_text_alone_reject_it(self, fake_embedder, rows_file, out, monkeypatch):
        monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 16)
        monkeypatch.setattr(chunk_reader, "MAX_BATCH_CHUNKS", 16)

        async def fail(texts):
            return {row: of_row(OF_A_TEXT["failing"], row) for row, text in enumerate(texts) if text.endswith("row 16")}

        summary = run(fake_embedder(on_embed=fail), [rows_file(17)], out / "o.jsonl", RunOptions(on_error="skip"))
        assert (summary.chunks, summary.rejected) == (16, 1)

    def test_that_no_text_caused_end_the_job(self, fake_embedder, rows_file, out):
        async def deny(texts):
            return {3: AuthenticationError("the key was refused", route="r")}

        async def refuse_all(texts):
            return {row: RefusedInputError("a wrong parameter", route="r") for row in range(len(texts))}

        for on_embed, kind in ((deny, AuthenticationError), (refuse_all, RefusedInputError)):
            with pytest.raises(kind):
                run(
                    fake_embedder(on_embed=on_embed),
                    [rows_file(10)],
                    out / f"{kind.__name__}.jsonl",
                    RunOptions(on_error="skip"),
                )
            assert list(out.iterdir()) == []

    @pytest.mark.parametrize("fault", ["space", "shape"])
    def test_of_another_space_or_shape_never_reach_the_sink(self, fake_embedder, rows_file, out, fault):
        import dataclasses

        embedder = fake_embedder()
        embed = embedder.embed

        async def wrong(texts, **more):
            result = await embed(texts, **more)
            if fault == "shape":
                return dataclasses.replace(result, vectors=result.vectors[:-1])
            return dataclasses.replace(result, space=dataclasses.replace(result.space, pooling="cls"))

        embedder.embed = wrong
        with pytest.raises((SpaceMismatchError, BadVectorsError)):
            run(embedder, [rows_file(10)], out / "o.jsonl")
        assert list(out.iterdir()) == []


@pytest.mark.usefixtures("small_batches")
def test_cancelling_leaves_nothing(fake_embedder, rows_file, out):
    async def main():
        async def cancel_later(texts):
            if len(embedder.calls) == 3:
                task.cancel()
                await asyncio.get_running_loop().create_future()

        embedder = fake_embedder(on_embed=cancel_later)
        source = rows_file(200)
        task = asyncio.create_task(run_job(embedder, [source], str(out / "o.parquet"), RunOptions()))
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert list(out.iterdir()) == []


def test_cancelling_does_not_wait_for_a_parser(fake_embedder, tmp_path, out, monkeypatch):
    returning = threading.Event()
    page = tmp_path / "page.html"
    page.write_text("<p>a text")

    async def main():
        loop, parsing = asyncio.get_running_loop(), asyncio.Event()

        def parse(markup, path):
            loop.call_soon_threadsafe(parsing.set)
            returning.wait()
            return ParsedText(markup)

        monkeypatch.setattr(html, "parse_html", parse)
        task = asyncio.create_task(run_job(fake_embedder(), [str(page)], str(out / "o.parquet"), RunOptions()))
        await parsing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert list(out.iterdir()) == []
    returning.set()


def test_a_job_that_is_cancelled_while_its_destination_appears_is_completed(fake_embedder, rows_file, out, monkeypatch):
    cancelled = threading.Event()

    async def main():
        loop, committing = asyncio.get_running_loop(), asyncio.Event()

        def commit(store):
            loop.call_soon_threadsafe(committing.set)
            cancelled.wait()
            complete(store)

        complete = ParquetStore.commit
        monkeypatch.setattr(ParquetStore, "commit", commit)
        task = asyncio.create_task(run_job(fake_embedder(), [rows_file(10)], str(out / "o.parquet"), RunOptions()))
        await committing.wait()
        task.cancel()
        loop.call_soon(cancelled.set)
        return await task, task.cancelling()

    summary, cancelling = asyncio.run(main())
    assert (summary.chunks, cancelling) == (10, 0)
    assert open_store(str(out / "o.parquet")).count == 10


@pytest.mark.parametrize(("kind", "name"), [(Journal, "remove"), (ChunkReader, "close")])
def test_a_job_that_is_cancelled_after_its_commit_leaves_no_journal(
    fake_embedder, rows_file, out, monkeypatch, kind, name
):
    cancelled = threading.Event()
    destination = str(out / "o.parquet")

    async def main():
        loop, closing = asyncio.get_running_loop(), asyncio.Event()
        close = getattr(kind, name)

        def wait_and_close(owner):
            loop.call_soon_threadsafe(closing.set)
            cancelled.wait()
            close(owner)

        monkeypatch.setattr(kind, name, wait_and_close)
        task = asyncio.create_task(run_job(fake_embedder(), [rows_file(10)], destination, RunOptions()))
        await closing.wait()
        task.cancel()
        loop.call_soon(cancelled.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        for thread in threading.enumerate():
            if thread.name == "embedway-journal":
                await asyncio.to_thread(thread.join, 60)
                assert not thread.is_alive()

    asyncio.run(main())
    store = open_store(destination)
    assert store.count == 10
    assert not journal_path(store).exists()


def test_cancelling_does_not_wait_for_a_standard_input_that_stays_open(fake_embedder, out):
    closed = threading.Event()

    class Open(io.RawIOBase):
        """Reports that it is read, and returns nothing until it is closed."""

        def __iter__(self):
            loop.call_soon_threadsafe(reading.set)
            closed.wait()
            return iter(())

    async def main():
        nonlocal loop, reading
        loop, reading = asyncio.get_running_loop(), asyncio.Event()
        job = run_job(fake_embedder(), ["-"], str(out / "o.jsonl"), RunOptions(), standard_input=Open())
        task = asyncio.create_task(job)
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop = reading = None
    asyncio.run(main())
    assert list(out.iterdir()) == []
    closed.set()


def test_sigterm_cleans_up_and_says_so(fake_embedder, rows_file, out):
    async def terminate(texts):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.get_running_loop().create_future()

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run(fake_embedder(on_embed=terminate), [rows_file(10)], out / "o.parquet")
    assert caught.value.code == 143
    assert list(out.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_read_ahead_is_bounded_and_the_loop_stays_free(fake_embedder, tmp_path, out, monkeypatch):
    """While one batch is embedded, only the next one is read."""
    monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 10)
    monkeypatch.setattr(chunk_reader, "MAX_BATCH_CHUNKS", 10)
    taken = 0
    ahead = []

    class Endless(io.RawIOBase):
        """Endless lines, until enough were embedded."""

        def __iter__(self):
            return self

        def __next__(self):
            nonlocal taken
            if len(embedder.calls) > 30:
                raise StopIteration
            taken += 1
            return b"line %d\n" % taken

    async def watch(texts):
        # Enough turns of the loop for the reader to reach its limit.
        for _ in range(200):
            await asyncio.sleep(0)
        ahead.append(taken - sum(embedder.calls))

    embedder = fake_embedder(on_embed=watch)
    summary = run(embedder, ["-"], out / "o.jsonl", standard_input=Endless())
    assert summary.chunks == sum(embedder.calls)
    assert max(ahead) <= 10
    assert max(ahead[:-2]) > 0


def test_no_thread_stays(fake_embedder, rows_file, out):
    before = set(threading.enumerate())
    run(fake_embedder(), [rows_file(10)], out / "o.jsonl")
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("embedway-"):
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_files_beside_the_destination_are_the_users_too(fake_embedder, tmp_path):
    (tmp_path / "a.txt").write_text("a text")
    own = tmp_path / "out.jsonl.rejects.jsonl"
    own.write_text("my own notes\n")
    for source in (str(tmp_path / "a.txt"), str(own)):
        with pytest.raises((SinkError, UsageError)):
            asyncio.run(run_job(fake_embedder(), [source], str(tmp_path / "out.jsonl"), RunOptions()))
    assert own.read_text() == "my own notes\n"
    assert not (tmp_path / "out.jsonl").exists()


def test_a_quote_that_is_never_closed_does_not_take_in_the_rest(fake_embedder, tmp_path):
    source = tmp_path / "a.csv"
    source.write_text('id,text\n1,alpha\n2,"beta\n3,gamma\n4,delta\n')
    with pytest.raises(SourceError, match="is not CSV") as caught:
        asyncio.run(run_job(fake_embedder(), [str(source)], str(tmp_path / "out.jsonl"), RunOptions()))
    assert caught.value.line == 3


def test_a_field_to_keep_must_be_there(fake_embedder, tmp_path):
    source = tmp_path / "a.csv"
    source.write_text("id,text,title\n1,alpha,A\n")
    with pytest.raises(
        SourceError,
        match=r"'titel'.*did you mean 'title'\?\); existing columns: 'id', 'text', 'title'",
    ):
        asyncio.run(run_job(fake_embedder(), [str(source)], str(tmp_path / "out.jsonl"), RunOptions(keep=("titel",))))


def test_files_that_a_parser_refuses_are_all_named_at_once(fake_embedder, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\ntext")
    (folder / "b.epub").write_bytes(b"PK damaged")
    (folder / "c.ipynb").write_text("{}")
    (folder / "d.txt").write_bytes(b"\xff")
    with pytest.raises(SourceError, match=r"b\.epub: is no valid EPUB file") as caught:
        run(fake_embedder(), [str(folder)], tmp_path / "o.parquet")
    *others, remedy = caught.value.__notes__
    assert [note.partition(": ")[0].rpartition("/")[2] for note in others] == ["c.ipynb", "d.txt:1"]
    assert "on_error='skip'" in remedy
    summary = run(fake_embedder(), [str(folder)], tmp_path / "o.parquet", RunOptions(on_error="skip"))
    assert (summary.documents, summary.rejected) == (1, 3)


def test_an_empty_name_is_no_source(fake_embedder, tmp_path):
    with pytest.raises(UsageError, match="is a variable unset"):
        asyncio.run(run_job(fake_embedder(), [""], str(tmp_path / "out.jsonl"), RunOptions()))


@pytest.mark.parametrize("transactional", [True, False])
def test_a_model_that_fails_leaves_the_collection_that_would_be_replaced(
    fake_embedder, rows_file, monkeypatch, transactional
):
    monkeypatch.setattr(MemoryStore, "transactional", transactional)
    monkeypatch.setattr("memory_store.PLACES", {})

    def run(count, **options):
        source = [rows_file(count)]
        asyncio.run(run_job(fake_embedder(**options), source, MemoryStore("memory:a"), RunOptions(overwrite=True)))

    def written():
        store = MemoryStore("memory:a")
        store.open()
        return store.count

    async def fail(_):
        raise AuthenticationError("the key is wrong", route="r", status=401)

    run(3)
    with pytest.raises(AuthenticationError):
        run(5, on_embed=fail)
    assert written() == 3
    run(5)
    assert written() == 5
