"""Errors as answers: what callers read, and what only the log has."""

import pytest

from embedway import errors
from embedway.server.problems import problem_of

UNAVAILABLE = errors.UnavailableError("10.0.0.7:8790 refuses the connection", route="routes.secret", retry_after_s=3.0)
INTERNAL = errors.LedgerError("/var/lib/ledger.sqlite is locked")


def test_a_caller_reads_no_routes_and_addresses_of_the_gateway(caplog):
    caplog.set_level("INFO", "embedway.server")
    told, shown = problem_of(UNAVAILABLE), problem_of(UNAVAILABLE, is_admin=True)
    assert (told.status, told.code, told.retry_after_s) == (503, "upstream_unavailable", 3.0)
    assert told.message == "the service that computes this model is unavailable"
    assert "10.0.0.7" in shown.message
    assert "10.0.0.7" in caplog.text


@pytest.mark.parametrize("is_admin", [False, True])
def test_an_internal_error_is_only_logged(caplog, is_admin):
    problem = problem_of(INTERNAL, is_admin=is_admin)
    assert (problem.status, problem.retry_after_s) == (503, 1.0)
    assert "ledger.sqlite" not in problem.message
    assert "ledger.sqlite" in caplog.text


def test_a_text_at_fault_is_named_by_its_row():
    problem = problem_of(errors.InputError("it is empty", row=3))
    assert (problem.status, problem.param, problem.message) == (400, "input.3", "it is empty")


def test_the_limit_of_the_request_itself_has_its_own_code():
    own = errors.BudgetExceededError("the call may cost $2", budget="max_cost", needed=2, left=1)
    assert (problem_of(own).code, problem_of(own).param) == ("max_cost_exceeded", "max_cost")
    budget = errors.BudgetExceededError("budget web", budget="key web", needed=2, left=1)
    assert (problem_of(budget).status, problem_of(budget).code) == (429, "insufficient_quota")
