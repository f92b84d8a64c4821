"""Billed tokens and searches in answers: the names that services and gateways use, and damaged numbers."""

import pytest

from embedway.providers.usage import MOST_COUNT, read_searches, read_tokens


@pytest.mark.parametrize(
    "body",
    [
        {"usage": {"prompt_tokens": 12, "total_tokens": 12}},
        {"usage": {"prompt_tokens": 12}},
        {"usage": {"input_tokens": 12}},
        {"usage": {"prompt_tokens": 12, "total_tokens": 0}},
        {"usage": {"prompt_tokens": 0, "total_tokens": 12}},
        {"usage": {"prompt_tokens": 12, "total_tokens": None}},
        {"usage": {"prompt_tokens": 12, "total_tokens": -1}},
        {"usage": {"inputTokens": 12, "totalTokens": 12.0}},
        {"usage": {"total_tokens": "12"}},
        {"usage": {"total_tokens": "12.0"}},
        {"usageMetadata": {"promptTokenCount": 12}},
        {"usageMetadata": {"totalTokenCount": 12}},
        {"meta": {"billed_units": {"input_tokens": 12}}},
        {"meta": {"billed_units": {"input_tokens": 12.0}, "tokens": {"input_tokens": 90}}},
        {"meta": {"tokens": {"input_tokens": 12}}},
        {"meta": {"billed_units": {"input_tokens": 0}}, "usage": {"prompt_tokens": 12}},
        {"inputTextTokenCount": 12},
        {"usage": {"inputTextTokenCount": 12}},
        # litellm #41750: rows as Amazon Titan writes them, without `usage`.
        {"data": [{"index": 0, "inputTextTokenCount": 5}, {"index": 1, "inputTextTokenCount": 7}]},
        {"usage": {"total_tokens": 0}, "embeddings": [{"inputTextTokenCount": 12}]},
        {"prompt_eval_count": 12},
    ],
    ids=repr,
)
def test_tokens_are_found_under_the_names_of_all_services(body):
    assert read_tokens(body) == 12


@pytest.mark.parametrize("nothing", [None, "", "twelve", "-12", "1_2", "١٢", -12, 2.5, [], {}, True, False, [12]])
def test_what_is_no_count_is_no_report(nothing):
    assert read_tokens({"usage": {"prompt_tokens": nothing, "total_tokens": nothing}}) is None
    assert read_tokens({"usage": nothing, "meta": nothing, "usageMetadata": nothing, "data": nothing}) is None
    assert read_searches({"meta": {"billed_units": {"search_units": nothing}}}) is None


@pytest.mark.parametrize("body", [None, [], "text", 3, {}, {"data": [{"inputTextTokenCount": 5}, {}]}, {"data": [3]}])
def test_other_answers_have_no_report(body):
    assert read_tokens(body) is None
    assert read_searches(body) is None


@pytest.mark.parametrize("many", [MOST_COUNT + 1, 10**12, 10**30, 1e30, "9" * 32])
def test_a_number_that_no_request_can_have_is_cut(many):
    assert read_tokens({"usage": {"total_tokens": many}}) == MOST_COUNT
    assert read_tokens({"data": [{"inputTextTokenCount": many}] * 3}) == MOST_COUNT


def test_a_report_of_nothing_differs_from_no_report():
    assert read_tokens({"usage": {"prompt_tokens": 0, "total_tokens": 0}}) == 0
    assert read_searches({"meta": {"billed_units": {"search_units": 0}}}) == 0
    assert read_searches({"meta": {"billed_units": {"search_units": 2.0}}}) == 2
