"""`embedway conformance`: the table, JSON, exit codes and options."""

import asyncio
import contextlib
import threading

import pytest
from tokenizers import Tokenizer

from embedway.conformance.table import CHECKS
from judged_server import KEY, MODEL, JudgedServer
from serving import serving_app

QUICK = ("--check", "row-order", "--check", "usage", "--check", "input-type", "--check", "keep-alive")


@pytest.fixture
def served(tokenizer):
    """Return a context manager that serves with faults on another thread, and yields the URL."""
    plain = Tokenizer.from_file(str(tokenizer))
    plain.no_truncation()
    plain.no_padding()

    @contextlib.contextmanager
    def serve(*faults, **options):
        ready, port, loop, end = threading.Event(), [], asyncio.new_event_loop(), asyncio.Event()

        async def main():
            async with serving_app(JudgedServer(plain, *faults, **options).app()) as number:
                port.append(number)
                ready.set()
                await end.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
        thread.start()
        try:
            assert ready.wait(30)
            yield f"http://127.0.0.1:{port[0]}"
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()
            loop.close()

    return serve


def test_the_table_and_exit_code_of_a_good_server(command, served, tokenizer):
    with served("tells of truncation") as url:
        done = command("conformance", url, "--tokenizer", tokenizer.parent, "--max-tokens", "128", *QUICK)
    assert done.code == 0, done.stderr
    first, head, *rows, last = done.stdout.splitlines()
    assert first.startswith(f"{url}/v1: {MODEL}, tokenizer ")
    assert first.endswith(", 128 tokens")
    assert head.split() == ["check", "verdict", "seen", "why", "it", "matters"]
    assert [row.split()[:2] for row in rows] == [
        ["row-order", "passed"],
        ["usage", "passed"],
        ["input-type", "passed"],
        ["keep-alive", "passed"],
    ]
    assert last == "4 checks: 4 passed."


def test_json_names_all_verdicts_and_a_failure_is_exit_code_4(command, served):
    faults = ("unsorted", "closes connections", "no input_type")
    with served(*faults) as url:
        done = command("conformance", f"{url}/v1", "--json", *QUICK)
    assert done.code == 4
    assert "--tokenizer names it" in done.stderr
    document = done.json
    assert (document["url"], document["model"], document["tokenizer"]) == (f"{url}/v1", MODEL, None)
    assert document["counts"] == {"passed": 1, "failed": 1, "warned": 1, "skipped": 1}
    assert [check["verdict"] for check in document["checks"]] == ["failed", "passed", "skipped", "warned"]
    assert all(check["seen"] and check["why"] for check in document["checks"])


def test_all_checks_but_the_skipped_ones_run(command, served):
    with served() as url:
        done = command("conformance", url, "--json", "--skip", "huge-batch", "--skip", "cancelled")
    assert [check["name"] for check in done.json["checks"]] == [
        check.name for check in CHECKS if check.name not in {"huge-batch", "cancelled"}
    ]
    assert done.code == 0, done.stdout


def test_a_key_comes_from_a_variable_and_is_not_shown(command, served):
    with served(key=KEY) as url:
        without = command("conformance", url, *QUICK)
        wrong = command("conformance", url, "--api-key-env", "OWN", *QUICK, variables={"OWN": "sk-other"})
        right = command("conformance", url, "--api-key-env", "OWN", "--json", *QUICK, variables={"OWN": KEY})
    assert (without.code, wrong.code, right.code) == (1, 1, 0)
    assert "needs a key; use --api-key-env" in without.stderr
    assert "refuses the key" in wrong.stderr
    assert KEY not in right.stdout + right.stderr
    assert "sk-other" not in wrong.stdout + wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--api-key-env", "UNSET"), "the variable 'UNSET' is not set"),
        (("--check", "speed"), "no check is named 'speed'"),
        (("--tokenizer", "no-such-model"), "no-such-model"),
        (("--max-tokens", "0"), "--max-tokens"),
    ],
)
def test_wrong_options(command, served, arguments, message):
    with served() as url:
        done = command("conformance", url, *arguments)
    assert (done.code, done.stdout) == (2 if arguments[0] != "--tokenizer" else 1, "")
    assert message in done.stderr


def test_several_models_are_listed_without_control_characters(command, served):
    with served("several models", "control characters") as url:
        done = command("conformance", url)
    assert done.code == 2
    assert "\x1b" not in done.stderr
    assert r"the server has 3 models; name one with --model: 'other\x1b[31m'" in done.stderr


def test_a_server_that_is_not_there(command, served):
    with served() as url:
        pass
    done = command("conformance", url)
    assert (done.code, done.stdout) == (1, "")
    assert "the connection failed" in done.stderr
