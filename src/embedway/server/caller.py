"""Caller of a request: the API key that it came with, and what this key may do."""

from __future__ import annotations

from dataclasses import dataclass

from embedway.errors import UsageError

#: Start of the collections of a tenant in the stores of pins and costs.
_TENANT_MARK = "@"
#: Highest priority of a request; the lowest is 0.
HIGHEST_PRIORITY = 9


@dataclass(frozen=True, slots=True)
class Caller:
    """An API key, without its secret. The default is the caller of a gateway that needs no keys."""

    #: Name of the key, whose budgets are charged; empty without keys.
    key_name: str = ""
    #: Tenant whose cache, pins, files and batches are used; empty for the default tenant.
    tenant: str = ""
    #: Names of the models that the key may use; None for all.
    models: tuple[str, ...] | None = None
    #: Share of the gateway under load, relative to other keys.
    weight: float = 1.0
    #: Highest priority that a request may ask for, 0 to 9.
    max_priority: int = HIGHEST_PRIORITY
    #: Maximum requests and tokens per minute; None for no limit.
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    #: Whether it may see the metrics and the page, which show all tenants.
    admin: bool = False

    def may_see_budget(self, scope: str) -> bool:
        """Return whether the name and the amounts of a budget may be told: of the call, of this key, or to an admin."""
        return self.admin or scope in {"", f"api_key:{self.key_name}"}

    def own_collection(self, collection: str) -> str:
        """Return the name of a tenant's collection in the stores. Raises UsageError for a name of another tenant."""
        if collection.startswith(_TENANT_MARK):
            raise UsageError(f"collection starts with {_TENANT_MARK!r}, which is reserved; choose another name")
        return f"{_TENANT_MARK}{self.tenant}/{collection}" if collection and self.tenant else collection


#: Caller of a gateway without keys.
ANYONE = Caller(admin=True)
