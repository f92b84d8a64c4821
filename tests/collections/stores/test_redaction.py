"""Secrets in destinations, also in those that cannot be parsed."""

import pytest

from embedway.collections.stores import shown, store_for
from embedway.errors import UsageError

HIDDEN = [
    "postgresql://u:pa/sECRET@127.0.0.1/db#t",
    "postgresql://u:12/sECRET@127.0.0.1/db#t",
    "postgresql://u:12/sECRET?x@127.0.0.1/db#t",
    "postgresql://u:12#sECRET@127.0.0.1/db",
    "postgresql://u:@sECRET@127.0.0.1/db#t",
    "postgresql://u:12@sE/CRET@127.0.0.1/db?sECRET=1@h#t",
    "postgresql://u?password=sECRET@h/db#t",
    "postgresql://h:sECRET/db#t",
    "postgresql://h/db#t?password=sECRET",
    "postgresql://h/db#t@sECRET@h",
    "postgresql:/u:sECRET@h/db#t",
    "postgresql:u:sECRET@h/db#t",
    "postgresql:u:sE:sECRET@h/db#t",
    "postgres://u:sECRET@h/db",
    "PostgreSQL://u:sECRET@h/db#t",
    "postgresq://u:pa/sECRET@h/db#t",
    "mysql://sECRET@h/db",
    "host=h password=sECRET dbname=d",
    "host=h password='a\\'sECRET' dbname=d",
    "host=h password='a sECRET",
    "host=h password='u:a@sECRET b'",
    "postgresql:host=h password=sECRET dbname=d",
    "postgresql:host=h password='a@sECRET'",
    "postgresql//u:sECRET@h/db#t",
    "postgresql//u:sECRET@h/db?password=sECRET#t",
    "u:sECRET@h/db#t",
    "u_1:sE:sECRET@h/db#t",
    "postgresql://h/db?password=a#sECRET#t",
    "postgresql://h/db?password=a@sECRET#t",
    "qdrant:http://h:6333?api_key=a#sECRET#c",
    "qdrant:http://h:6333#c?api_key=sECRET",
    "qdrant:http://h:6333?api_key=sECRET#c",
    "qdrant:http://sECRET@h:6333#c",
    "qdrant:http://u:12/sECRET@h#c",
    "chroma:HTTP://u:sECRET@h#rows",
    "chroma:http://u:12/sECRET@h#rows",
    "chroma:http://h#rows?token=sECRET",
    "chroma:ftp://u:sECRET@h#rows",
    "lancedb:s3://k:sECRET@bucket#t",
    "lancedb:s3://bucket?key=sECRET#t",
]


@pytest.mark.parametrize("destination", HIDDEN)
def test_secret_of_an_unusable_destination_is_hidden(destination):
    with pytest.raises(UsageError) as caught:
        store_for(destination)
    assert "sECRET" not in f"{caught.value!r} {caught.value.__cause__} {shown(destination)}"
    assert "CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("postgresql://u:sECRET@h:5432/db#s.t", "postgresql://u@h:5432/db#s.t"),
        ("postgresql://u:sE?C#RET@h/db#t", "postgresql://u@h/db#t"),
        ("postgresql://[::1]:5432,h2/db#t", "postgresql://[::1]:5432,h2/db#t"),
        ("postgresql:///db?host=/tmp&p%61ssword=sECRET#t", "postgresql:///db?host=/tmp&p%61ssword=***#t"),
        ("postgresql://h/db#ünï % t", "postgresql://h/db#ünï % t"),
    ],
)
def test_table_is_shown_without_its_password(destination, expected):
    assert store_for(destination).destination == shown(destination) == shown(shown(destination)) == expected


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("postgresql//u:sECRET@h/db#t", "***@h/db#t"),
        ("postgresql://h/db?sslmode=require&password=a#sECRET;x#t", "postgresql://h/db?sslmode=require&password=***#t"),
        ("postgresql://h/db?sECRET#t", "postgresql://h/db?***#t"),
        ("postgresql://h/db?password=a&sECRET=b#t", "postgresql://h/db?password=***#t"),
    ],
)
def test_the_rest_of_an_unusable_destination_is_shown(destination, expected):
    assert shown(destination) == shown(shown(destination)) == expected


@pytest.mark.parametrize(
    "destination",
    [
        *("a@b/c.parquet", "C:\\x@y\\c.parquet", "R&D=1@x.parquet", "a@b:c.parquet", "lancedb:dir#t"),
        *("chroma:http://h:8000#rows", "qdrant:https://h:6333/x#c"),
    ],
)
def test_other_destinations_are_shown_as_they_are(destination):
    assert shown(destination) == destination
