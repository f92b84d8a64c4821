"""Fields that an OpenAPI document claims for embeddings."""

import pytest

from embedway.conformance.openapi import has_field

REQUEST = {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}}
FIELD = {"properties": {"input_type": {}}}


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"paths": {"/v1/embeddings": {"post": REQUEST}}, "components": {"schemas": {"A": FIELD}}}, True),
        ({"paths": {"/v1/embeddings": {"post": REQUEST}}, "components": {"schemas": {"A": {"allOf": [FIELD]}}}}, True),
        ({"paths": {"/v1/rerank": {"post": REQUEST}}, "components": {"schemas": {"A": FIELD}}}, False),
        ({"paths": {"/v1/embeddings": {"post": {"responses": {"200": FIELD}}}}}, False),
        ({"paths": {"/embeddings": {"post": REQUEST}}, "components": {"schemas": {"A": REQUEST}}}, False),
        ({"paths": [], "components": 3}, False),
        ({"paths": {"/embeddings": None}}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_field_of_the_request(document, found):
    assert has_field(document, "input_type") is found
