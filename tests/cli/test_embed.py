"""`embed` with a backup model, and without normalization."""

import json

import pytest

SETTINGS = """
[models.m]
name = "acme/m"
dimensions = 4
max_tokens = 512
[routes.r]
model = "acme/m"
provider = "fake"
options = { width = 4, fail_every = 1 }
[models.n]
name = "acme/n"
dimensions = 8
max_tokens = 512
[routes.s]
model = "acme/n"
provider = "fake"
options = { width = 8 }
[upstream]
max_attempts = 1
"""
RUN = ("--config", "settings.toml", "embed", "--model", "acme/m")


@pytest.fixture(autouse=True)
def settings(place):
    (place / "settings.toml").write_text(SETTINGS)


def test_a_backup_embeds_all_texts_and_is_named(command):
    done = command(*RUN, "--backup", "acme/n, all-MiniLM-L6-v2", "first", "second")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["index"], len(row["embedding"])) for row in rows] == [(0, 8), (1, 8)]
    assert "'acme/m' failed (its service is unavailable); using the backup 'acme/n'" in done.stderr
    document = json.loads(command(*RUN, "--json", "--backup", "acme/n", "first").stdout)
    assert (document["space"]["model"], document["receipt"]["model"]) == ("n", "acme/n")


def test_a_stream_has_no_backup_because_its_lines_would_be_of_two_spaces(command):
    done = command(*RUN, "--backup", "acme/n", "-", stdin=b"first\n")
    assert done.code == 2
    assert "--backup need --json" in done.stderr
    assert command(*RUN, "--backup", "acme/n", "--json", "-", stdin=b"first\n").code == 0


@pytest.mark.parametrize("more", [("--backup", "nothing"), ("--backup", "acme/n", "--collection", "c")])
def test_a_wrong_backup_is_an_error(command, more):
    done = command(*RUN, *more, "first")
    assert done.code != 0
    assert not done.stdout


@pytest.mark.usefixtures("with_model")
def test_vectors_without_normalization(command):
    def length(*flags):
        done = command("embed", *flags, "a text")
        return sum(number**2 for number in json.loads(done.stdout)["embedding"])

    assert length("--no-normalize") > 4
    assert length("--normalize") == pytest.approx(1, abs=1e-3)
