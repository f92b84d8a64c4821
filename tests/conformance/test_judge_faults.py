"""Answers with random values in place of the right ones end no check with an error of its own."""

import asyncio
import random

import pytest

from embedway.conformance.judge import judge
from embedway.conformance.table import CHECKS
from embedway.conformance.target import parse_place
from judged_server import JudgedServer
from serving import serving_app

VALUES = (
    None,
    True,
    -1,
    0,
    10**18,
    1e308,
    float("nan"),
    "",
    "\x1b]0;title\x07",
    "x" * 5000,
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    "AAAA",
    {"message": 5},
    [{"index": "0"}],
)


class RandomServer(JudgedServer):
    """Replaces values of its answers, but not of the list of models and of the first answer."""

    def __init__(self, tokenizer, seed):
        super().__init__(tokenizer)
        self.random = random.Random(seed)

    def json(self, value, *, status=200, headers=None):
        if self.requests > 1:
            value = self.changed(value)
            status = self.random.choice([status, status, status, 200, 400, 401, 404, 500])
        return super().json(value, status=status, headers=headers)

    def changed(self, value, share=0.15):
        if self.random.random() < share:
            return self.random.choice(VALUES)
        if isinstance(value, dict):
            return {name: self.changed(one) for name, one in value.items()}
        if isinstance(value, list) and len(value) < 100:
            return [self.changed(one, 0.01) for one in value]
        return value


@pytest.mark.parametrize("seed", range(12))
def test_no_answer_ends_a_check_with_an_error_of_its_own(plain_tokenizer, seed):
    async def main():
        async with serving_app(RandomServer(plain_tokenizer, seed).app()) as port:
            checks = [check for check in CHECKS if check.name != "huge-batch"]
            return await judge(parse_place(f"http://127.0.0.1:{port}"), checks=checks)

    report = asyncio.run(main())
    seen = {result.name: result.verdict.seen for result in report.results}
    assert [name for name, text in seen.items() if "cannot be read (" in text or not text.isprintable()] == []
