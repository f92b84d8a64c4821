"""`search` on the command line: modes, conditions, groups, several queries, and the interactive session."""

import contextlib
import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from dataclasses import replace
from types import SimpleNamespace

import pytest

from embedway.cli.search_output import kept_values, location
from embedway.collections.search import Hit
from embedway.collections.search_results import SearchHit
from embedway.collections.snippets import Highlight, Snippet
from tiny_models import tiny_reranker

pytestmark = pytest.mark.usefixtures("with_model")

TEXTS = {
    "loop": ("en", "The event loop runs tasks. Blocking code stops it. Hand slow functions to a thread."),
    "error": ("en", "Short codes are in logs. E1133 means that the disk is full."),
    "bread": ("de", "The bakery on the corner sells rye bread and poppy seed cake."),
    "ice": ("de", "Glaciers carve valleys as they move slowly downhill."),
}
QUERY = "call a slow function from async code"


@pytest.fixture(scope="module")
def made():
    """Return the bytes of the collection by its name: it is embedded once."""
    return {}


@pytest.fixture
def notes(command, place, made):
    """Return a collection of four short texts."""
    if "out.parquet" in made:
        (place / "out.parquet").write_bytes(made["out.parquet"])
        return "out.parquet"
    rows = [{"id": name, "text": text, "lang": lang} for name, (lang, text) in TEXTS.items()]
    (place / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = command("run", "notes.jsonl", "--to", "out.parquet", "--keep", "lang")
    assert done.code == 0, done.stderr
    made["out.parquet"] = (place / "out.parquet").read_bytes()
    return "out.parquet"


def ids(document):
    return [hit["document_id"] for hit in document["hits"]]


def test_modes_have_scores_and_ranks(command, notes):
    for mode, first in (("vector", "loop"), ("keyword", "error"), ("hybrid", "error")):
        query = QUERY if mode == "vector" else "what does E1133 mean"
        done = command("search", notes, query, "--mode", mode, "--json")
        assert done.code == 0, done.stderr
        document = done.json
        best = document["hits"][0]
        assert (document["mode"], ids(document)[0]) == (mode, first)
        assert (best["vector_score"] is None, best["keyword_score"] is None) == (mode == "keyword", mode == "vector")
        assert (best["vector_rank"] is None, best["keyword_rank"] is None) == (mode == "keyword", mode == "vector")
        assert (document["receipt"] is None) == (mode == "keyword")
    assert ids(command("search", notes, "zebra", "--mode", "keyword", "--json").json) == []


def test_the_fields_of_earlier_versions_are_in_json(command, notes):
    document = command("search", notes, QUERY, "--json").json
    assert {"collection", "hits", "receipt", "seconds"} <= document.keys()
    assert document["collection"].keys() == {"destination", "count", "space"}
    hit = document["hits"][0]
    own = {"rank", "score", "id", "document_id", "source", "start_line", "title", "text", "location"}
    assert own <= hit.keys()
    assert (hit["rank"], hit["source"], hit["start_line"]) == (1, "notes.jsonl", 1)
    assert hit["location"] == "notes.jsonl:1"
    assert hit["metadata"] == {"lang": "en"}
    start, end = hit["highlight"]["start"], hit["highlight"]["end"]
    assert hit["text"][start:end] == "Hand slow functions to a thread."
    shown = hit["snippet"]
    assert shown["text"] == hit["text"][shown["start"] : shown["end"]] == TEXTS["loop"][1]
    assert shown["text"][slice(*shown["best"])] == "Hand slow functions to a thread."
    assert [shown["text"][slice(*span)] for span in shown["words"]] == ["code", "slow", "functions"]


def test_conditions(command, notes):
    for mode in ("vector", "keyword", "hybrid"):
        done = command("search", notes, "the corner", "--where", "lang = 'en'", "--mode", mode, "--json")
        assert done.code == 0, done.stderr
        assert {hit["metadata"]["lang"] for hit in done.json["hits"]} <= {"en"}
    assert ids(command("search", notes, "the corner", "--where", "lang = 'de'", "--json").json)[0] == "bread"
    done = command("search", notes, QUERY, "--where", "nothing = 1")
    assert (done.code, done.stdout) == (2, "")
    assert "lang" in done.stderr
    assert command("search", notes, QUERY, "--where", "lang = ").code == 2


def test_snippets_start_at_the_match_and_headings_are_shown_once(command, place):
    long = " ".join(f"Sentence {n} of this section says nothing about it." for n in range(8))
    (place / "guide.md").write_text(f"# Disks\n\n## Errors\n\n{long} E1133 means that the disk is full.\n\n{long}\n")
    done = command("run", "guide.md", "--to", "g.parquet", "--chunk-tokens", "240")
    assert done.code == 0, done.stderr
    done = command("search", "g.parquet", "E1133", "--mode", "keyword", "-n", "1")
    header, row = done.stdout.splitlines()
    assert header.split() == ["rank", "score", "where", "headings", "text"]
    assert row.split("  ")[-1].strip().startswith("E1133 means that the disk is full.")
    assert "guide.md:5" in row
    assert row.count("Disks") == 1


def test_a_short_text_is_shown_whole(command, notes):
    header, row = command("search", notes, "E1133", "--mode", "keyword").stdout.splitlines()
    assert header.split() == ["rank", "score", "where", "columns", "text"]
    assert row.endswith("Short codes are in logs. E1133 means that the disk is full.")


def test_a_search_without_hits_says_why(command, notes):
    for arguments, why in (
        (["zebra", "--mode", "keyword"], "no word of the query is in the collection"),
        (["bread", "--where", "lang = 'fr'"], "no row meets the condition"),
    ):
        done = command("search", notes, *arguments)
        assert (done.code, done.stdout) == (0, f"no hits: {why}\n")
        assert command("search", notes, *arguments, "--json").json["why_empty"] == why
    done = command("search", notes, " ")
    assert (done.code, done.stdout) == (2, "")
    assert "the query is empty" in done.stderr


def test_groups_and_neighbours(command, place):
    (place / "docs").mkdir()
    (place / "docs/long.md").write_text("\n\n".join(f"Paragraph {n} is about ships and sails." for n in range(40)))
    (place / "docs/other.md").write_text("A ship has sails.")
    done = command("run", "docs", "--to", "d.parquet", "--chunk-tokens", "40", "--overlap", "0", "--json")
    assert done.code == 0, done.stderr
    assert done.json["chunks"] > 4
    for mode in ("vector", "keyword", "hybrid"):
        grouped = command("search", "d.parquet", "ships and sails", "--group", "--mode", mode, "--json").json
        assert sorted(ids(grouped)) == ["long.md", "other.md"], mode
    done = command("search", "d.parquet", "paragraph 20 is about ships", "-n", "1", "--neighbours", "1", "--json")
    [hit] = done.json["hits"]
    beside = [one["number"] for one in hit["before"] + hit["after"]]
    assert beside == [number for number in (hit["number"] - 1, hit["number"] + 1) if 0 <= number < hit["total"]]
    shown = command("search", "d.parquet", "paragraph 20 is about ships", "-n", "1", "--neighbours", "1").stdout
    lines = [line.split() for line in shown.splitlines()[1:] if line.startswith("    ")]
    assert [line[0] for line in lines if line[1].isdecimal()] == ["before", "hit", "after"]
    numbers = [int(line[1]) for line in lines if line[1].isdecimal()]
    assert numbers == sorted(numbers)


def test_a_reranker_orders_the_rows_of_every_mode(command, notes, place, weights_folder):
    tiny_reranker(place / "reranker", next(weights_folder.glob("models/*/*/tokenizer.json")))
    for mode in ("keyword", "hybrid"):
        query = "E1133 glaciers bread"
        plain = command("search", notes, query, "--mode", mode, "--json").json
        done = command("search", notes, query, "--mode", mode, "--rerank", "./reranker", "--group", "--json")
        assert done.code == 0, done.stderr
        hits = done.json["hits"]
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        assert sorted(ids(done.json)) == sorted(ids(plain))
        ranks = {hit["id"]: (hit["vector_rank"], hit["keyword_rank"]) for hit in plain["hits"]}
        assert {hit["id"]: (hit["vector_rank"], hit["keyword_rank"]) for hit in hits} == ranks
        assert done.json["rerank"]["candidates"] == len(hits)


def test_an_unknown_reranker_is_refused_before_the_query_is_embedded(command, notes):
    done = command("search", notes, "bread", "--rerank", "bge-reranker-bas", "--model", "./no-such-folder")
    assert (done.code, done.stdout) == (1, "")
    assert "no model is called 'bge-reranker-bas'; nearest: BAAI/bge-reranker-base" in done.stderr


def test_kept_columns_are_in_the_table_and_null_ones_are_not(command, place):
    rows = [{"id": "a", "text": "Bread is baked.", "lang": "en", "price": 3.5}, {"id": "b", "text": "Bread is eaten."}]
    (place / "k.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert command("run", "k.jsonl", "--to", "k.parquet", "--keep", "lang", "--keep", "price").code == 0
    lines = command("search", "k.parquet", "bread baked", "--mode", "keyword").stdout.splitlines()
    assert lines[0].split() == ["rank", "score", "where", "columns", "text"]
    assert "lang=en, price=3.5" in lines[1]
    assert "=" not in lines[2]


def test_several_queries(command, notes, place):
    done = command("search", notes, "E1133", "bread", "--mode", "keyword", "--json")
    assert [(one["query"], ids(one)) for one in done.json["answers"]] == [("E1133", ["error"]), ("bread", ["bread"])]
    (place / "queries.txt").write_text('glaciers\n\n{"id": "q7", "query": "event loop"}\n')
    done = command("search", notes, "--queries", "queries.txt", "-n", "1", "--json")
    assert done.code == 0, done.stderr
    answers = done.json["answers"]
    assert [(one["id"], ids(one)) for one in answers] == [(1, ["ice"]), ("q7", ["loop"])]
    assert done.json["receipt"]["texts"] == 2
    assert "receipt" not in answers[0]
    shown = command("search", notes, "--queries", "-", "-n", "1", stdin="glaciers\nrye bread\n").stdout
    assert [line for line in shown.splitlines() if line.startswith("# ")] == ["# glaciers", "# rye bread"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no query"),
        (b"fine\n\xff\n", "queries.txt:2: is not UTF-8"),
        (b'{"query": ""}\n', "queries.txt:1: needs the text of a query"),
        (b'{"query": \n', "queries.txt:1: is not JSON"),
        (b'{"query": "a", "id": [7]}\n', "queries.txt:1: 'id' must be a text or a number"),
        (b'{"query": "a", "id": 1e999}\n', "queries.txt:1: 'id' must be a text or a number"),
        (b'{"query": "\\ud800"}\n', "queries.txt:1: is not valid Unicode"),
    ],
)
def test_files_of_queries_that_are_wrong(command, notes, place, content, message):
    (place / "queries.txt").write_bytes(content)
    done = command("search", notes, "--queries", "queries.txt", "--json")
    assert (done.code, done.stdout) == (1, "")
    assert message in done.stderr


def test_ids_of_queries_keep_their_type(command, notes):
    lines = [{"id": name, "text": "bread"} for name in (7, "7", 7.5, True, None)]
    done = command(
        "search", notes, "--queries", "-", "--mode", "keyword", "--json", stdin="\n".join(map(json.dumps, lines))
    )
    assert [one["id"] for one in done.json["answers"]] == [7, "7", 7.5, True, None]


def test_queries_come_from_one_place(command, notes):
    for arguments in ([], ["a", "--queries", "-"], ["a", "-i"], ["-i", "--json"]):
        done = command("search", notes, *arguments)
        assert (done.code, done.stdout) == (2, ""), arguments


def test_keywords_need_no_model(command, notes, environment, place):
    environment["EMBEDWAY_WEIGHTS__DIRECTORY"] = str(place / "empty")
    assert command("search", notes, QUERY).code == 1
    done = command("search", notes, "E1133", "--mode", "keyword", "--json")
    assert (done.code, ids(done.json)) == (0, ["error"]), done.stderr


def test_the_index_follows_a_new_run(command, notes, place):
    assert "keyword index is built" in command("search", notes, "E1133", "--mode", "keyword").stderr
    assert "keyword index" not in command("search", notes, "E1133", "--mode", "keyword").stderr
    (place / "notes.jsonl").write_text('{"id": "new", "text": "E4711 is new."}\n')
    assert command("run", "notes.jsonl", "--to", notes, "--overwrite").code == 0
    assert ids(command("search", notes, "E1133", "--mode", "keyword", "--json").json) == []
    assert ids(command("search", notes, "E4711", "--mode", "keyword", "--json").json) == ["new"]


def test_an_interactive_session(command, notes):
    lines = [
        "E1133",
        ":mode keyword",
        "E1133",
        ":where lang = 'de'",
        "E1133",
        ":where",
        ":top 1",
        "the",
        ":wrong",
        ":where nothing = 1",
        ":q",
        "never read",
    ]
    done = command("search", notes, "--interactive", stdin="\n".join(lines))
    assert done.code == 0, done.stderr
    tables = [[line for line in table.splitlines() if line[:4].strip().isdecimal()] for table in tables_of(done.stdout)]
    assert [len(table) for table in tables] == [4, 1, 0, 1]
    assert "no hits: no row that contains a word of the query meets the condition" in done.stdout
    assert "there is no command :wrong; :help lists the commands" in done.stderr
    assert "there is no column 'nothing'" in done.stderr
    assert "4 queries, p50" in done.stderr
    assert "where: lang = 'de'\n" in done.stderr
    assert "where: no\n" in done.stderr


def tables_of(output):
    """Return the tables of a session, which an empty line ends."""
    return output.split("\n\n")[:-1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (":top x", ":top needs a whole number, such as :top 10"),
        (":top 0", "top is 0; it must be at least 1"),
        (":tpo 3", "there is no command :tpo; did you mean :top?"),
        (":mode", "mode is ''; it must be one of vector, keyword, hybrid"),
        (":group yes", ":group has no value; it turns the option on or off"),
        (":where lang =", "expected a value"),
        (":neighbours 1", "neighbours: 1"),
        (":highlight", "highlight: by words"),
    ],
)
def test_commands_of_a_session_are_explained(command, notes, line, said):
    done = command("search", notes, "-i", "--mode", "keyword", stdin=f"{line}\nE1133\n")
    assert done.code == 0
    assert said in done.stderr
    assert "E1133 means" in done.stdout
    assert "1 query, p50" in done.stderr


def test_help_in_a_session_lists_commands_with_their_values(command, notes):
    done = command("search", notes, "-i", "--mode", "keyword", "--where", "lang = 'de'", stdin=":help\n:group\n:help\n")
    first, second = tables_of(done.stdout)
    assert [line.split()[0] for line in first.splitlines()[1:]] == [
        *(
            ":mode",
            ":where",
            ":top",
            ":group",
            ":merge",
            ":neighbours",
            ":rerank",
            ":candidates",
            ":fusion",
            ":highlight",
            ":help,",
        )
    ]
    values = {line.split()[0]: line for line in second.splitlines()}
    assert all(
        word in values[name].split() for name, word in ((":mode", "keyword"), (":where", "yes"), (":group", "yes"))
    )


def test_a_place_has_the_page_or_the_line():
    hit = Hit(0.5, "docs/a.pdf#0", "a.pdf", "docs", 1, None, "text", 0, 1, page=3)
    snippet = Snippet(0, 4, 7, "text", page=4)
    assert location(SearchHit(0.5, hit, snippet, Highlight(0, 4))) == "docs/a.pdf p. 4"
    assert location(SearchHit(0.5, hit, replace(snippet, page=None), Highlight(0, 4))) == "docs/a.pdf:7"


def test_kept_values_are_written_as_in_conditions():
    values = {"beta": True, "tags": ["a", "\u00e9"], "year": 2024, "size": None, "lang": "de"}
    hit = Hit(0.5, "a#0", "a", "docs", 1, None, "text", 0, 1, metadata=values)
    assert kept_values(SimpleNamespace(hit=hit)) == 'beta=true, tags=["a", "\u00e9"], year=2024, lang=de'


@pytest.mark.parametrize(
    ("source", "document", "place"),
    [
        ("notes.jsonl", "7", "notes.jsonl:5"),
        ("docs", "a/notes.jsonl/x/7", "docs/a/notes.jsonl:5"),
        ("docs", "Notes.CSV.gz/7", "docs/Notes.CSV.gz:5"),
        ("docs", "notes.json", "docs/notes.json:5"),
        ("docs", "a/plot.ipynb", "docs/a/plot.ipynb cell 5"),
        ("plot.ipynb", "plot.ipynb", "plot.ipynb cell 5"),
    ],
)
def test_a_place_is_the_file_of_a_row_and_the_cell_of_a_notebook(source, document, place):
    hit = Hit(0.5, f"{document}#0", document, source, 5, None, "text", 0, 1)
    assert location(SearchHit(0.5, hit, Snippet(0, 4, 5, "text"), Highlight(0, 4))) == place


@pytest.mark.parametrize(
    ("asked", "meant"), [("out.parqet", "out.parquet"), ("ot.parquet", "out.parquet"), ("out", "out.parquet")]
)
def test_a_misspelt_collection_is_named(command, notes, asked, meant):
    done = command("search", asked, "x")
    assert (done.code, done.stdout) == (2 if not asked.endswith(".parquet") else 1, "")
    assert f"did you mean '{meant}'?" in done.stderr
    assert "lancedb:DIR#TABLE" in command("search", "zzz.zzz", "x").stderr


@pytest.mark.subprocess
@pytest.mark.parametrize(("key", "code"), [(b"\x04", 0), (b"\x03", 130)])
def test_ctrl_d_and_ctrl_c_end_a_session(command, notes, environment, place, key, code):
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "embedway", "search", notes, "-i", "--mode", "keyword"],
        env={**environment, "TERM": "xterm"},
        cwd=place,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  Ctrl-C needs a terminal of its own
    )
    os.close(terminal)
    shown = b""
    while b"keyword> " not in shown:
        shown += os.read(controller, 65536)
    os.write(controller, key)
    assert process.wait(60) == code
    with contextlib.suppress(OSError):
        while part := os.read(controller, 65536):
            shown += part
    os.close(controller)
    assert b"Traceback" not in shown
    assert (b"the session is ended" in shown) == (code == 130)


def test_an_interactive_session_ends_with_its_input(command, notes):
    assert command("search", notes, "-i", "--mode", "keyword", stdin="").code == 0
    done = command("search", notes, "-i", "--mode", "keyword", stdin="E1133")
    assert "E1133 means" in done.stdout


def test_an_error_of_a_query_does_not_end_the_session(command, notes):
    done = command("search", notes, "-i", stdin="x\n:rerank all-MiniLM-L6-v2\nbread\n:rerank\nbread\n")
    assert done.code == 0
    assert "does not score pairs" in done.stderr
    assert "2 queries, p50" in done.stderr


@pytest.mark.subprocess
def test_matches_are_bold_on_a_terminal_and_escapes_are_not_sent(command, place, environment):
    (place / "a.jsonl").write_text(json.dumps({"id": "a", "text": "Red \x1b[31m text means E1133."}) + "\n")
    assert command("run", "a.jsonl", "--to", "a.parquet").code == 0
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "embedway", "search", "a.parquet", "E1133", "--mode", "keyword"],
        env={**environment, "TERM": "xterm"},
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(controller, 65536):
            shown += part
    except OSError:
        pass  # on Linux: no process has the terminal open any more
    os.close(controller)
    assert process.communicate()[1] == b"" or process.wait() == 0
    assert b"\x1b[1;36mE1133\x1b[0m" in shown
    assert b"\x1b[1mRed  [31m text means \x1b[0m" in shown
    assert b"\x1b[31m" not in shown
