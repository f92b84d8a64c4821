"""States that all users of a place in a process share, such as what it has read in a ledger."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True, weakref_slot=True)
class SharedState:
    """State that users of a place share, and their number."""

    users: int = 0


S = TypeVar("S", bound=SharedState)


class SharedStates(Generic[S]):
    """States by place. All users of a place in this process share its state while there is one of them."""

    def __init__(self, new: Callable[[], S]) -> None:
        self._new = new
        self._states: weakref.WeakValueDictionary[str, S] = weakref.WeakValueDictionary()

    def join(self, place: str) -> S:
        """Return the state of a place, and count a user; a new state if there was no user."""
        state = self._states.setdefault(place, self._new())
        state.users += 1
        return state

    def leave(self, place: str, state: S) -> S:
        """Uncount a user that is closed, and return a shallow copy for it. The last user removes the shared state."""
        state.users -= 1
        if state.users <= 0 and self._states.get(place) is state:
            del self._states[place]
        return replace(state, users=0)

    def clear(self) -> None:
        """Stop sharing: later users of a place get a new state."""
        self._states.clear()
