"""Warnings about texts in a script that their model does not know: in the receipt, the log, and for hooks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from embedway.dispatch.request import current_deadline
from embedway.errors import EmbedwayError
from embedway.quality.scripts import (
    ENOUGH_LETTERS,
    Measurement,
    all_scripts,
    count_tokens_of_script,
    find_scripts,
    foreign_characters,
    is_known,
)
from embedway.selection.analysis import detect_languages
from embedway.telemetry.operations import VectorCheckDetails
from embedway.types import VectorChecks

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from embedway.config import Config
    from embedway.models.base import Model
    from embedway.quality.names import WarningCheck
    from embedway.quality.scripts import ScriptSample
    from embedway.selection.selector import ModelSelector
    from embedway.telemetry.hooks import Hooks
    from embedway.types import Receipt

_log = logging.getLogger("embedway.quality.scripts")

_CHECK: WarningCheck = "script"


@dataclass(slots=True)
class _ScriptsOfModel:
    """Scripts of a model: which of them it knows, and what was measured."""

    #: Pattern for characters of scripts that the model does not know, or that were not measured.
    foreign: re.Pattern[str] = field(default_factory=foreign_characters)
    known: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    measured: dict[str, Measurement] = field(default_factory=dict)
    #: Which model is better, by script.
    advice: dict[str, str] = field(default_factory=dict)


class ScriptCheck:
    """Check of the scripts of texts. Used from one event loop."""

    def __init__(self, config: Config, selector: ModelSelector, hooks: Hooks) -> None:
        self._config = config
        self._selector = selector
        self._hooks = hooks
        self._is_enabled = config.quality.check_scripts
        self._models: dict[tuple[str, str | None], _ScriptsOfModel] = {}
        self._lock = asyncio.Lock()

    async def add_warnings(
        self, receipt: Receipt, model: Model, texts: Sequence[str], *, is_query: bool = False
    ) -> Receipt:
        """Return the receipt of texts, or of queries, with a warning for each script that the model does not know."""
        if not self._is_enabled or all(map(str.isascii, texts)):  # the table of scripts is not read for ASCII
            return receipt
        key = model.name, model.space.tokenizer
        scripts = self._models.get(key)
        if scripts is None:
            scripts = self._models[key] = _ScriptsOfModel()
        found = find_scripts(texts, scripts.foreign)
        notes = []
        for script, sample in found.items():
            if self._knows(model, scripts, script, sample.text):
                continue
            notes.append(await self._note(model, scripts, script, sample, is_query=is_query))
            route = model.profile.route
            self._hooks.event(VectorCheckDetails, model.name, route, _CHECK, "warned", sample.texts)
        return with_warnings(receipt, notes) if notes else receipt

    def _knows(self, model: Model, scripts: _ScriptsOfModel, script: str, text: str) -> bool:
        """Return whether a model knows a script. It is measured until enough letters were seen."""
        if script in scripts.known or script in scripts.unknown:
            return script in scripts.known
        benchmark = self._config.embedding.model_benchmarks.get(model.name)
        total = None
        if model.space.tokenizer:  # the model's own, on this machine
            total = scripts.measured.get(script, Measurement()) + count_tokens_of_script(
                model.profile.description.tokenizer, script, text
            )
            scripts.measured[script] = total
        known = is_known(total, script, () if benchmark is None else benchmark.languages)
        if total is None or total.letters >= ENOUGH_LETTERS:
            (scripts.known if known else scripts.unknown).add(script)
            if known:
                scripts.foreign = foreign_characters(scripts.known)
        return known

    async def _note(
        self, model: Model, scripts: _ScriptsOfModel, script: str, sample: ScriptSample, *, is_query: bool
    ) -> str:
        """Return the warning, and log it the first time."""
        async with self._lock:  # concurrent calls log it once
            advice = scripts.advice.get(script)
            is_first = advice is None
            if advice is None:
                advice = scripts.advice[script] = await self._advice(model.name, script, sample.text)
            again = "; its collection must be embedded again with another model" if is_query else ""
            note = (
                f"{model.name} does not know the {script} script of some texts, so search finds little in them{again}; "
                f"{advice}"
            )
            if is_first:
                _log.warning("%s (%s in this call). This is logged once", note, _count_of(sample.texts))
        return note

    async def _advice(self, model: str, script: str, text: str) -> str:
        """Return which model is better for the texts, and the command that selects it."""
        deadline = current_deadline.get()
        # The vectors are ready, and must not fail for the lack of advice.
        patience_s = None if deadline is None else max(0.0, (deadline.end - time.monotonic()) / 2)
        language, best = all_scripts()[script].languages[0], None
        with contextlib.suppress(EmbedwayError, TimeoutError):
            async with asyncio.timeout(patience_s):
                language = await _language_of(text, script)
                best = await self._selector.best_for_language(language, excluded=model)
        if best is None:
            return f"`embedway select --language {language} --anywhere` lists the models for {language}"
        name, lacks = best
        if lacks:
            return (
                f"the best model for {language} is {name}, not usable now: `embedway select --language {language} "
                "--anywhere`"
            )
        return f"the best model for {language} here is {name}: `embedway select --language {language}`"


def _count_of(texts: int) -> str:
    return f"{texts:,} text{'' if texts == 1 else 's'}"


async def _language_of(text: str, script: str) -> str:
    """Return the language of a text in a script: the most used one if it is not detected."""
    languages = all_scripts()[script].languages
    if len(languages) == 1:
        return languages[0]
    found = await asyncio.to_thread(detect_languages, text)
    return next((one for one in found if one in languages), languages[0])


def with_warnings(receipt: Receipt, notes: Sequence[str]) -> Receipt:
    """Return a receipt with notes of this check."""
    checks = receipt.checks or VectorChecks(receipt.unique_texts)
    checks = replace(checks, warnings=(*checks.warnings, _CHECK))
    return replace(receipt, notes=(*receipt.notes, *notes), checks=checks)
