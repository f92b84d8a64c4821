"""`run`, `search` and `embed` print a warning about texts in a script that the model does not know."""

import json

import pytest

pytestmark = [pytest.mark.usefixtures("with_model"), pytest.mark.subprocess]

THAI = "ปัญญาประดิษฐ์ช่วยแพทย์วินิจฉัยโรคได้อย่างรวดเร็ว"
WARNING = "sentence-transformers/all-MiniLM-L6-v2 does not know the Thai script of some texts"


@pytest.fixture
def english(command, place):
    """Embed an English text into a collection."""
    (place / "english.txt").write_text("The cache stores vectors of texts.")
    done = command("run", "english.txt", "--to", "out.jsonl")
    assert (done.code, "script" in done.stderr) == (0, False)
    return "out.jsonl"


def test_run_warns_about_documents(command, place):
    rows = [THAI, "An English text.", f"{THAI} {THAI}"]
    (place / "texts.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    done = command("run", "texts.jsonl", "--to", "out.jsonl", "--json")
    assert done.code == 0, done.stderr
    assert done.stderr.count(WARNING) == 1
    [note] = done.json["notes"]
    assert note.startswith(WARNING)


def test_search_warns_about_the_query(command, english):
    done = command("search", english, "ปัญญาประดิษฐ์", "--json")
    assert done.code == 0, done.stderr
    assert done.stderr.count(WARNING) == 1
    assert done.json["receipt"]["notes"][0].startswith(WARNING)
    assert "its collection must be embedded again" in done.stderr
    assert "script" not in command("search", english, "cache").stderr


def test_embed_warns_and_a_setting_prevents_it(command, place):
    assert command("embed", "-", stdin=THAI).stderr.count(WARNING) == 1
    assert WARNING not in command("--quiet", "embed", "-", stdin=THAI).stderr
    (place / "off.toml").write_text("[quality]\ncheck_scripts = false\n")
    assert WARNING not in command("--config", "off.toml", "embed", "-", stdin=THAI).stderr
