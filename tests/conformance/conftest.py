"""A tokenizer for the judged server, and a function that judges it."""

import asyncio

import pytest
from tokenizers import Tokenizer

from embedway.conformance.judge import chosen_checks, judge
from embedway.conformance.reference import Reference
from embedway.conformance.target import parse_place
from judged_server import MAX_TOKENS, JudgedServer
from serving import serving_app


@pytest.fixture(scope="session")
def plain_tokenizer(tokenizer):
    plain = Tokenizer.from_file(str(tokenizer))
    plain.no_truncation()
    plain.no_padding()
    return plain


@pytest.fixture(scope="session")
def judged(plain_tokenizer):
    """Return a function that judges a server with faults, and returns the verdicts by the name of the check."""

    def run(*faults, checks=(), key=None, own_key=None, patience_s=60.0, timeout_s=60.0, known=True, **options):
        server = JudgedServer(plain_tokenizer, *faults, key=key)
        prompts = ("query: ", "") if "prompts" in faults else ("", "")
        reference = Reference("of the test", plain_tokenizer, MAX_TOKENS, *prompts) if known else None

        async def main():
            async with serving_app(server.app()) as port:
                place = parse_place(f"http://127.0.0.1:{port}", key=own_key, timeout_s=timeout_s, patience_s=patience_s)
                chosen = chosen_checks(checks, ())
                found = lambda model: reference  # noqa: E731
                return await judge(place, checks=chosen, find_reference=found, **options)

        report = asyncio.run(main())
        return {result.name: result.verdict for result in report.results}

    return run
