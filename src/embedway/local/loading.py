"""Loading of local models: from a name to files, recipe and session options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.catalog import DEFAULT_MODEL, default_catalog
from embedway.catalog.services import default_services
from embedway.errors import UnsupportedModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.catalog import ModelFacts
    from embedway.config import Config
    from embedway.local.encoder import Encoder
    from embedway.local.recipe import Recipe
    from embedway.local.remote import RemoteModel
    from embedway.local.runtime_choice import RuntimeChoice
    from embedway.weights.store import ModelFolder, ProgressSink, WeightsStore

HUB_PREFIX = "hf:"


@dataclass(frozen=True, slots=True)
class ResolvedName:
    """Resolved model name: a catalog row, a hub repository at a revision, or a folder."""

    key: str
    facts: ModelFacts | None = None
    repository: str | None = None
    revision: str | None = None
    folder: Path | None = None


def resolve(name: str) -> ResolvedName:
    """Resolve a model name. Raises UnknownModelError with the nearest names.

    Resolution order: `hf:OWNER/NAME[@REVISION]` is a repository. A name that begins with `.`, `/` or `~` is a folder.
    Then catalog names, which a folder in the working directory never shadows. Then folders whose path contains a
    separator.
    """
    if name == "auto":
        name = DEFAULT_MODEL
    if name.startswith(HUB_PREFIX):
        repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
        if not repository:
            raise UsageError(f"{name!r} names no repository: write hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
        return ResolvedName(name, repository=repository, revision=revision or None)
    catalog = default_catalog()
    written_as_path = name.startswith((".", "/", "~")) or Path(name).is_absolute()
    known = name in catalog or name.casefold() in default_services()
    if written_as_path or ("/" in name and not known and Path(name).is_dir()):
        try:
            folder = Path(name).expanduser().resolve()
        except (RuntimeError, ValueError, OSError) as error:
            raise UsageError(f"{name!r} is not a folder path: {error}") from error
        return ResolvedName(str(folder), folder=folder)
    facts = catalog.get(name)
    return ResolvedName(facts.name, facts=facts)


def open_model(name: str, config: Config, progress: ProgressSink | None = None) -> Encoder:
    """Find or pull a model's files and load the model. Blocking.

    Raises the errors of names, weights and unsupported models.
    """
    loaded = load(resolve(name), config, progress)
    recipe = loaded.recipe
    if recipe.task != "embed":
        raise UnsupportedModelError(f"{recipe.name} is a reranker: it scores pairs of texts and returns no vectors")
    return encoder_of(loaded)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Model files, opened and hashed, with the recipe, the session options and the catalog row.

    `listed_files` is true if the files come from the row's own repository and commit.
    """

    recipe: Recipe
    choice: RuntimeChoice
    facts: ModelFacts | None
    listed_files: bool


def encoder_of(loaded: LoadedModel, *, remote: RemoteModel | None = None, bulk_nice: int = 0) -> Encoder:
    """Return the encoder of an embedding model whose files are open; see `Encoder` for the options. Blocking."""
    from embedway.local.encoder import Encoder  # noqa: PLC0415  imports numpy and the backends

    recipe = loaded.recipe
    space = recipe.space(recipe.dimensions, loaded.facts, listed_files=loaded.listed_files)
    return Encoder(recipe, loaded.choice, space, remote=remote, bulk_nice=bulk_nice)


def load(
    name: ResolvedName,
    config: Config,
    progress: ProgressSink | None = None,
    *,
    check: Callable[[Mapping[str, Path]], None] | None = None,
) -> LoadedModel:
    """Find or pull a model's files, open them, and choose session options. Blocking.

    `check` receives the settings files of a repository before its weights are fetched, and may raise an error.
    """
    from embedway.local.recipe import read_recipe  # noqa: PLC0415
    from embedway.local.runtime_choice import choose_runtime  # noqa: PLC0415
    from embedway.weights.store import WeightsStore  # noqa: PLC0415

    store = WeightsStore(config.store_settings(), progress=progress)
    folder = find_or_pull(name, store, check=check)
    facts = name.facts or default_catalog().by_weights(folder.weights_sha256)
    shown = facts.name if facts is not None else name.repository or folder.path.name
    recipe = read_recipe(
        folder.path,
        name=shown,
        weights_sha256=folder.weights_sha256,
        facts=facts,
        onnx_file=folder.onnx_file,
        hash_cache=store.hash_cache,
    )
    recipe.check_weights()
    choice = choose_runtime(
        config, weights_sha256=folder.weights_sha256, weights_bytes=sum(file.size for file in recipe.files)
    )
    return LoadedModel(recipe, choice, facts, listed_files=name.facts is not None)


def find_or_pull(
    name: ResolvedName, store: WeightsStore, *, check: Callable[[Mapping[str, Path]], None] | None = None
) -> ModelFolder:
    """Return the model's folder if the store has it intact, else pull it."""
    if name.folder is not None:
        return store.open_folder(name.folder)
    if name.facts is not None:
        return store.find(name.facts.weights) or store.pull(name.facts.weights)
    repository = name.repository or ""
    found = store.find_repository(repository, name.revision)
    return found or store.pull_repository(repository, name.revision, check=check)
