"""Errors that go to a handler, and those after it raised one."""

import pytest

from embedway.collections.fault_list import FaultList
from embedway.errors import SinkError, SourceError


def test_a_handler_that_records_gets_every_error():
    seen = []
    faults = FaultList(seen.append)
    for number in range(30):
        faults.add(SourceError("bad", path="a", line=number))
    faults.raise_first()
    assert len(seen) == 30
    assert not faults.is_stopping()


def test_after_the_handler_raised_the_others_become_notes():
    def refuse(fault):
        raise fault

    faults = FaultList(refuse)
    for line in (1, 2):
        faults.add(SourceError("bad", path="a", line=line))
    assert faults.is_stopping()
    with pytest.raises(SourceError, match="a:1: bad") as caught:
        faults.raise_first()
    assert caught.value.__notes__[0] == "also a:2: bad"
    assert caught.value.__notes__[1].startswith("on_error='skip'")
    assert len(caught.value.__notes__) == 2


def test_another_error_of_the_handler_passes():
    def fail(_fault):
        raise SinkError("is full", destination="x")

    with pytest.raises(SinkError):
        FaultList(fail).add(SourceError("bad", path="a"))


def test_parsed_files_weigh_more_than_rows():
    def refuse(fault):
        raise fault

    faults = FaultList(refuse)
    assert not faults.is_enough(1_000_000)
    faults.add(SourceError("bad", path="a"))
    assert not faults.is_enough(100_000)
    assert faults.is_enough()
