"""All endpoints of the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.server import health
from embedway.server.dialects import openai
from embedway.server.pages import overview, page

if TYPE_CHECKING:
    from embedway.server.endpoint import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (*openai.ENDPOINTS, *health.ENDPOINTS, *page.ENDPOINTS, *overview.ENDPOINTS)
