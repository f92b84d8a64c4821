"""Base of all sections of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of settings. Frozen; an unknown key is an error; an error never repeats the input."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
