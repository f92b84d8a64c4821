"""Analysis of texts: languages, unknown ones included, code, lengths, and the inspected sample."""

import tomllib
from pathlib import Path

import pytest

from embedway.selection.analysis import analyze, detect_languages, take_sample
from embedway.selection.code_detection import detect_code, looks_like_code

SNIPPETS = tomllib.loads((Path(__file__).parent / "snippets.toml").read_text(encoding="utf-8"))
TEXTS = {
    "en": "A vector belongs to one space, and distances between two spaces mean nothing to whoever searches.",
    "de": "Ein Vektor gehört in genau einen Raum, und Abstände zwischen zwei Räumen bedeuten nichts.",
    "fr": "Un vecteur appartient à un seul espace, et les distances entre deux espaces ne veulent rien dire du tout.",
    "es": "Un vector pertenece a un solo espacio, y las distancias entre dos espacios no significan nada para nadie.",
    "ru": "Вектор принадлежит одному пространству, и расстояния между двумя пространствами ничего не значат.",
    "zh": "向量属于一个空间。两个空间之间的距离没有意义。每次写入之前都会检查模型和维度。",
    "ja": "ベクトルは一つの空間に属しており、二つの空間の間の距離には意味がありません。",
    "ko": "벡터는 하나의 공간에 속하며 두 공간 사이의 거리는 아무런 의미가 없습니다.",
    "he": "וקטור שייך למרחב אחד בלבד, והמרחקים בין שני מרחבים אינם אומרים דבר.",
}
CODE = {
    "python": """def nearest(query, vectors, count=10):
    scores = vectors @ query
    return np.argsort(-scores)[:count]
""",
    "javascript": """const nearest = (query, rows) => {
  const scores = rows.map((row) => dot(row, query));
  return scores;
};
""",
    "sql": """SELECT id, embedding <=> $1 AS distance
FROM passages
WHERE collection = 'docs'
ORDER BY distance LIMIT 10;
""",
    "c": """#include <stdio.h>
int main(void) {
    for (int i = 0; i < 3; i++) {
        printf("%d", i);
    }
    return 0;
}
""",
}
FENCED = """Whoever wants the vector of a text calls the embedder, and so does whoever wants many:

```python
vectors = embedder.embed(['text']).vectors
```

That is all there is.
"""
NO_CODE = [
    TEXTS["en"],
    "The function of the class is to import knowledge (and to return it); from then on, for each pupil, it is of use.",
    "Prices: 5 (small), 7 (medium), and 9 (large) = 21 in all. See chapter 3; it has more.",
    "- first point\n- second point\n- third point, which is longer than the others\n",
    "",
]


@pytest.mark.parametrize("language", TEXTS)
def test_languages(language):
    assert detect_languages(TEXTS[language]) == (language,)
    analysis = analyze([TEXTS[language]] * 3)
    assert analysis.languages == ((language, 1.0),)
    assert analysis.primary_language == language
    assert (analysis.unknown, analysis.multilingual) == (0, False)


@pytest.mark.parametrize("text", ["ok", "HTTP 500", "42", "…", "vector db", "", "x = 1"])
def test_a_text_that_is_too_short_is_unknown(text):
    assert detect_languages(text) == ()
    analysis = analyze([text, text])
    assert analysis.primary_language is None
    assert not analysis.multilingual


def test_a_batch_is_multilingual_from_the_second_language_on():
    mix = analyze([TEXTS["de"], TEXTS["zh"]])
    assert mix.multilingual
    assert mix.languages == (("de", 0.5), ("zh", 0.5))
    # One different text among many does not count as a second language.
    stray = analyze([TEXTS["en"]] * 40 + [TEXTS["de"]])
    assert not stray.multilingual
    assert stray.primary_language == "en"


@pytest.mark.parametrize("kind", CODE)
def test_code(kind):
    assert looks_like_code(CODE[kind])
    analysis = analyze([CODE[kind], TEXTS["en"]])
    assert (analysis.code, analysis.contains_code) == (0.5, True)


def test_prose_that_holds_code_is_both():
    assert not looks_like_code(FENCED)
    analysis = analyze([FENCED])
    assert analysis.contains_code
    assert analysis.primary_language == "en"


@pytest.mark.parametrize("text", NO_CODE)
def test_prose_is_no_code(text):
    assert not looks_like_code(text)
    assert not analyze([text]).contains_code


@pytest.mark.parametrize("kind", SNIPPETS["prose"])
def test_prose_of_every_kind_is_no_code(kind):
    assert detect_code(SNIPPETS["prose"][kind]) == (False, False)


@pytest.mark.parametrize("kind", SNIPPETS["code"])
def test_code_of_every_kind_is_code_and_nothing_else(kind):
    assert detect_code(SNIPPETS["code"][kind]) == (True, True)


@pytest.mark.parametrize("kind", SNIPPETS["both"])
def test_prose_with_code_has_a_language_too(kind):
    analysis = analyze([SNIPPETS["both"][kind]])
    assert (analysis.code, analysis.languages) == (1.0, (("en", 1.0),))


@pytest.mark.parametrize("languages", SNIPPETS["mixed"])
def test_a_text_of_two_languages_makes_a_batch_multilingual(languages):
    analysis = analyze([SNIPPETS["mixed"][languages]])
    assert set(dict(analysis.languages)) == set(languages.split("-"))
    assert analysis.multilingual


@pytest.mark.parametrize("language", SNIPPETS["alone"])
def test_a_text_of_one_language_is_not_taken_apart(language):
    analysis = analyze([SNIPPETS["alone"][language]])
    assert analysis.languages == ((language, 1.0),)
    assert not analysis.multilingual


def test_lengths_are_of_all_texts_and_the_rest_of_a_bounded_sample():
    texts = [f"{TEXTS['en']} Number {n}." for n in range(5000)]
    texts[4321] = "long " * 10_000
    sample = take_sample(texts)
    assert len(sample) == 64
    assert all(len(text) <= 1000 for text in sample)
    analysis = analyze(texts, sample=sample)
    assert (analysis.texts, analysis.sampled) == (5000, 64)
    assert (analysis.longest_characters, analysis.longest_row) == (50_000, 4321)
    assert analysis.characters == sum(map(len, texts))
    assert analysis.mean_characters == pytest.approx(analysis.characters / 5000)
    assert "64" in analysis.sample
    assert analysis == analyze(texts)
    # From the complete list, not only from its beginning.
    assert any(text in texts[4000:] for text in sample)
    assert take_sample(texts[:10]) == [text[:1000] for text in texts[:10]]


def test_no_texts():
    analysis = analyze([])
    assert (analysis.texts, analysis.sampled, analysis.characters, analysis.longest_row) == (0, 0, 0, None)
    assert (analysis.languages, analysis.contains_code, analysis.multilingual) == ((), False, False)
    assert analysis.to_json()["languages"] == {}
