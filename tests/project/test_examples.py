"""The examples run, and print the documented output."""

import asyncio
import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import pytest

from api_servers import KEY, OpenAIServer

EXAMPLES = Path(__file__).parents[2] / "examples"


class HostedServer(OpenAIServer):
    width = 1536


@pytest.fixture(autouse=True)
def place(tmp_path, default_model_directory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDWAY_WEIGHTS__DIRECTORY", str(default_model_directory))
    monkeypatch.setenv("EMBEDWAY_WEIGHTS__OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")


def printed(name, *arguments):
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return output.getvalue().splitlines()


def test_the_first_vectors():
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    shown = re.search(r"```text\n(.*?)```", readme, re.DOTALL)[1].splitlines()
    assert printed("first_vectors.py") == shown
    assert shown[-1] == "all-MiniLM-L6-v2@53aa5117/384 (3, 384)"


def test_a_hosted_model_with_a_budget(monkeypatch):
    server = HostedServer()

    async def main():
        async with server.running():
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
            return await asyncio.to_thread(printed, "hosted_model_with_budget.py")

    plan, paid, refused = asyncio.run(main())
    assert plan == "plan: 16 tokens, $0.00000032"
    assert re.fullmatch(r"paid: \$0\.000000\d+ for \d+ tokens", paid)
    assert refused.startswith("refused: ")
    assert len(server.log) == 1


def test_a_search_of_a_folder(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "bread.md").write_text("# Bread\nBake it at 230 degrees for half an hour.\n")
    (notes / "logs.md").write_text("# Logs\nA log file is rotated when it reaches 10 MB.\n")
    best, other = printed("search_a_folder.py", str(notes), "my logs fill the disk")
    assert best.endswith("notes/logs.md:1  Logs")
    assert other.endswith("notes/bread.md:1  Bread")


def test_the_standard_library_answers_each_question_with_its_best_hit():
    # `make run` embeds ten packages. For a test, the modules of the answers and two others are enough.
    names = runpy.run_path(str(EXAMPLES / "standard_library.py"))
    names["main"].__globals__["PARTS"] = ("http/cookies", "json", "logging/handlers", "pathlib", "queue")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        asyncio.run(names["main"]())
    lines = output.getvalue().splitlines()
    best = [lines[lines.index(question) + 1] for question in names["QUESTIONS"]]
    answers = ("class RotatingFileHandler", "class SMTPHandler", "def glob", "class PriorityQueue")
    assert [answer in line for answer, line in zip(answers, best, strict=True)] == [True] * 4
    assert max(map(len, [line for line in lines if line.startswith("  0.")])) <= 80
