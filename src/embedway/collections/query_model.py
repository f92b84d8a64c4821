"""Model for the queries of a collection: the one that made its vectors, proven before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.errors import DimensionsError, SpaceMismatchError, UnknownModelError, UsageError
from embedway.remedies import option

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.stores.base import Store
    from embedway.config import Config
    from embedway.space import Space


@dataclass(frozen=True, slots=True)
class QueryModel:
    """A model whose space is the collection's; `local` if it runs on this machine, without cost."""

    name: str
    dimensions: int
    local: bool = False


async def prove_query_model(
    embedder: AsyncEmbedder, store: Store, model: str | None = None, *, note: Callable[[str], None] = lambda _: None
) -> QueryModel:
    """Open the model of a collection, or `model`, and prove that both have one space.

    `note` receives what the user should know. Raises SpaceMismatchError, UsageError and the errors of models.
    """
    name, dimensions = model or model_name(store.space, embedder.config), store.space.dimensions
    if model is not None:
        refuse_other_model(store.space, model, destination=store.destination)
    try:
        description = await embedder.models.describe(name, dimensions, load=True)
    except DimensionsError:
        description = await embedder.models.describe(name, None, load=True)
    except UnknownModelError as error:
        if model is not None:
            raise
        raise UsageError(
            f"{store.destination} contains vectors of {store.space.id}, whose model is not in the catalog: "
            f"name the model with {option('model')}, as hf:OWNER/NAME or as its folder"
        ) from error
    try:
        comparison = store.check_space(description.space)
    except SpaceMismatchError:
        if model is None:
            note(f"{name} was looked up by name; for a model in a local folder, use {option('model', './FOLDER')}")
        raise
    if comparison.unknown:
        from embedway.collections.verify import verify_space  # noqa: PLC0415  only for old collections

        note(await verify_space(embedder, store, description.space, comparison.unknown, model=name))
    return QueryModel(name, dimensions, bool(description.space.tokenizer) and description.runtime != "service")


def model_name(space: Space, config: Config) -> str:
    """Return the name of a collection's model. Its space contains only the last part of the name of your own model."""
    from embedway.catalog import default_catalog  # noqa: PLC0415  heavy
    from embedway.catalog.services import default_services  # noqa: PLC0415
    from embedway.providers.names import own_models  # noqa: PLC0415

    short = space.model
    if short in default_catalog() or short.casefold() in default_services():
        return short
    own = [facts.name for facts in own_models(config).values() if facts.name.rsplit("/", 1)[-1] == short]
    return own[0] if len(own) == 1 else short


def refuse_other_model(space: Space, model: str, *, destination: str, asked: str = "the query") -> None:
    """Raise SpaceMismatchError, before weights or keys are needed, if both models are in the catalog and differ."""
    from embedway.catalog import default_catalog  # noqa: PLC0415
    from embedway.catalog.services import default_services  # noqa: PLC0415

    catalog, services = default_catalog(), default_services()

    def canonical(name: str) -> str:
        if (service := services.get(name.casefold())) is not None:
            return service.name
        return catalog.get(name).name if name in catalog else ""

    named, own = canonical(model), canonical(space.model)
    if named and own and named != own:
        raise SpaceMismatchError(collection=destination, collection_space=space.id, asked_space=named, asked=asked)
