"""Progress of a batch under any order of claims, results, crashes and stops."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from embedway.server.batches import progress
from embedway.server.batches.base import Segment
from embedway.server.batches.progress import PartResult
from embedway.server.batches.values import Batch, StoredFile, pack, unpack

LEASE_S = 30.0
SIZE = 10
START = Batch("batch_x", "a", "k", "file-i", SIZE, "file-o", "file-e", 0.0, 86_400.0, 1000)


class World:
    """A batch of lines of one byte each, and workers that may crash."""

    def __init__(self):
        self.batch = START
        self.now = 1000.0
        #: Claimed parts by token, until their worker ends or crashes; and finished lines.
        self.parts = {}
        self.done = []
        self.tokens = 0

    def put(self, batch):
        """Apply a change, as a store does, and check what is always true."""
        if batch is None:
            return False
        assert not self.batch.has_ended
        self.batch = unpack(Batch, pack(batch))
        assert self.batch == batch
        assert len(self.done) == batch.completed + batch.failed
        covered = [part.offset + n for part in batch.parts for n in part.todo]
        assert sorted([*self.done, *covered]) == list(range(batch.cursor))
        return True

    def claim(self, lines):
        self.tokens += 1
        token = f"t{self.tokens}"
        batch, now = self.batch, self.now
        lines = min(lines, SIZE - batch.cursor)
        if not (
            self.put(progress.resume(batch, now, token, LEASE_S))
            or (
                lines
                and self.put(progress.extend(batch, now, token, LEASE_S, offset=batch.cursor, size=lines, lines=lines))
            )
        ):
            return None
        part = progress.part_of(self.batch, token)
        self.parts[token] = part
        return token

    def commit(self, token, chosen, is_paused):
        part = self.parts.pop(token)
        done = frozenset(n for n in part.todo if chosen & (1 << n))
        result = PartResult(done, len(done), 0, 3 * len(done), is_paused=is_paused)
        segment = Segment("file-o", 0, token, len(done)) if done else None
        change = progress.commit(self.batch, self.now, token, result, (segment, None))
        if change is None:
            assert self.batch.has_ended or progress.part_of(self.batch, token) is None
            return
        self.done += [part.offset + n for n in done]
        assert [one.position for one in change.segments] == ([self.batch.segments] if done else [])
        assert self.put(change.batch)


STEPS = st.one_of(
    st.tuples(st.just("claim"), st.integers(1, 4)),
    st.tuples(st.just("commit"), st.integers(0, 5), st.integers(0, 15), st.booleans()),
    st.tuples(st.just("crash"), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.floats(0, 100)),
    st.tuples(st.just("back"), st.floats(0, 1000)),
    st.tuples(st.just("renew")),
    st.tuples(st.just("stop"), st.sampled_from(["cancelled", "storage"])),
    st.tuples(st.just("expire")),
)


def take(world, step):
    kind, *values = step
    tokens = list(world.parts)
    if kind == "claim":
        world.claim(values[0])
    elif kind == "commit" and tokens:
        world.commit(tokens[values[0] % len(tokens)], values[1], values[2])
    elif kind == "crash" and tokens:
        del world.parts[tokens[values[0] % len(tokens)]]
    elif kind == "pass":
        world.now += values[0]
    elif kind == "back":
        world.now -= min(values[0], world.now)
    elif kind == "renew":
        world.put(progress.watch(world.batch, world.now, tokens, LEASE_S))
    elif kind == "stop":
        world.put(progress.stop(world.batch, world.now, values[0]))
    elif kind == "expire":
        world.now = max(world.now, world.batch.expires_at)


@given(st.lists(STEPS, max_size=40))
def test_every_line_is_finished_once(steps):
    world = World()
    assert world.put(progress.begin_check(world.batch, world.now, "v", LEASE_S))
    assert progress.begin_check(world.batch, world.now + 1, "w", LEASE_S) is None
    world.put(progress.end_check(world.batch, world.now, "v", total=SIZE, model="m", errors=()))
    for step in steps:
        assert progress.finish(world.batch, world.now) is None or not world.batch.parts
        take(world, step)
    # All workers crash, and one that does not fail goes on.
    world.parts.clear()
    world.now += 4000
    world.put(progress.expire(world.batch, world.now))
    for _ in range(3 * SIZE):
        token = world.claim(4)
        if token is not None:
            world.commit(token, 15, False)
    ended = progress.finish(world.batch, world.now)
    assert sorted(world.done) == list(range(SIZE))
    assert ended.batch.status == {"": "completed", "storage": "completed"}.get(world.batch.stop, world.batch.stop)
    (file,) = ended.files
    assert (file.id, file.size) == ("file-o", SIZE)
    assert file.expires_at == world.now + 1000
    for change in (progress.stop(ended.batch, world.now, "cancelled"), progress.finish(ended.batch, world.now)):
        assert change is None


def test_a_held_lease_is_not_taken_unless_it_ends_too_late_to_be_true():
    world = World()
    world.batch = replace(START, status="in_progress", total=SIZE)
    world.claim(10)
    held = world.batch
    assert progress.waiting_part(held, world.now + 29) is None
    assert progress.waiting_part(held, world.now + 31) is not None
    # The clock went back by days: the lease was taken while it was ahead.
    assert progress.waiting_part(held, world.now - 86_400) is not None


def test_a_stored_value_of_another_form_is_refused():
    import pytest

    for wrong in (b"", b"{}", b"[]", pack(START)[:-1], pack(START).replace(b'"total":0', b'"total":"0"'), None, "x"):
        with pytest.raises(ValueError, match="not a stored value"):
            unpack(Batch, wrong)
    with pytest.raises(ValueError, match="not a stored value"):
        unpack(StoredFile, pack(START))
