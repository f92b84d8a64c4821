"""Scripts of texts by bounds of letters, and what tokenizers of several kinds know."""

# ruff: noqa: RUF001 - texts in other scripts

import itertools

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from embedway.catalog.languages import explain_wrong_tag
from embedway.quality import scripts
from embedway.quality.scripts import (
    SAMPLE_CHARACTERS,
    Measurement,
    all_scripts,
    count_tokens_of_script,
    find_scripts,
    foreign_characters,
    is_known,
    scripts_of,
)

THAI = "ปัญญาประดิษฐ์ช่วยแพทย์วินิจฉัยโรคได้อย่างรวดเร็ว"
CODE = """def read(path):
    # 打开文件
    with open(path) as file:
        return file.read()  # 返回内容
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # Texts in one script.
        (THAI, ["Thai"]),
        ("ສະບາຍດີ ເຈົ້າເປັນແນວໃດ", ["Lao"]),
        ("សួស្តី តើអ្នកសុខសប្បាយទេ", ["Khmer"]),
        ("မင်္ဂလာပါ နေကောင်းလား", ["Burmese"]),
        ("გამარჯობა, როგორ ხარ?", ["Georgian"]),
        ("Բարև, ինչպե՞ս ես", ["Armenian"]),
        ("ሰላም እንዴት ነህ ወዳጄ", ["Ethiopic"]),
        ("שלום, מה שלומך?", ["Hebrew"]),
        ("مرحبا، كيف حالك؟", ["Arabic"]),
        ("می\u200cخواهم کتاب بخوانم", ["Arabic"]),
        ("नमस्ते, आप कैसे हैं?", ["Devanagari"]),
        ("আপনি কেমন আছেন?", ["Bengali"]),
        ("வணக்கம், எப்படி இருக்கிறீர்கள்?", ["Tamil"]),
        ("నమస్కారం, మీరు ఎలా ఉన్నారు?", ["Telugu"]),
        ("Привет, как дела?", ["Cyrillic"]),
        ("Καλημέρα, τι κάνεις;", ["Greek"]),
        ("안녕하세요, 잘 지내세요?", ["Korean"]),
        ("你好，最近怎么样？", ["Chinese"]),
        ("お元気ですか。予定表を開いてください。", ["Japanese"]),
        ("データベース", ["Japanese"]),
        ("漢字", ["Chinese"]),
        ("Καλημέρα".replace("έ", "ε\u0301"), ["Greek"]),
        # Two scripts with a large share each.
        ("Hello world, this is a test. Привет мир, это проверка.", ["Cyrillic"]),
        ("使用浅克隆：`git clone --depth 1` 只取最新的一次提交", ["Chinese"]),
        ("Привет мир, это проверка. สวัสดีชาวโลกนี่คือการทดสอบ", ["Cyrillic", "Thai"]),
        # Latin letters of any language.
        ("Zürich liegt am See; naïve Fälle gibt es überall.", []),
        ("Tôi muốn tìm hiểu về cơ sở dữ liệu", []),
        ("Zażółć gęślą jaźń", []),
        ("İstanbul'da çalışıyor", []),
        ("\uff26\uff55\uff4c\uff4c\uff57\uff49\uff44\uff54\uff48 letters", []),
        # A few letters of another script.
        ("The word λόγος has many meanings in philosophy.", []),
        ("The Russian word дача has no exact translation into English.", []),
        ("She moved to Tokyo (東京) after her studies.", []),
        ("a cat is 猫", []),
        ("猫", []),
        (CODE, []),
        ("git commit -m 'fix login' # исправлено", ["Cyrillic"]),
        # Symbols.
        ("🎉🚀 shipped it 👩‍👩‍👧‍👦", []),
        ("🎉🚀👩‍👩‍👧‍👦🇹🇭", []),
        ("┌──────┬───┐\n│ name │ n │\n└──────┴───┘", []),
        ("∀x∈ℝ: x² ≥ 0 ∧ ∑ᵢ αᵢ = 1", []),
        ("λ₁α + μβ = γ", []),
        ("∇·E = ρ/ε₀, ΔT = 3 µs, 4 kΩ", []),
        ("𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕞𝕒𝕥𝕙 𝒍𝒆𝒕𝒕𝒆𝒓𝒔", []),
        ("¯\\_(ツ)_/¯ ಠ_ಠ ( ͡° ͜ʖ ͡°) (´・ω・`)", []),
        ("“curly” — dashes … and • bullets → arrows ✓ 20 €", []),
        ("٢٠٢٤/٠١/٣١", []),
        ("१२३४५६७८", []),
        # Addresses.
        ("https://example.org/%E0%B8%97%E0%B8%94/page?q=1", []),
        ("https://xn--12c1fe0br.xn--o3cw4h/", []),
        ("https://th.wikipedia.org/wiki/ไทย", []),
        ("", []),
        ("12345 -- 67", []),
    ],
)
def test_scripts_of_a_text(text, found):
    assert list(find_scripts([text], foreign_characters())) == found


def test_few_texts_among_many_are_found():
    found = find_scripts([*["plain"] * 5000, THAI, *["plain"] * 5000, THAI], foreign_characters())
    assert {name: sample.texts for name, sample in found.items()} == {"Thai": 2}


def test_the_middle_of_a_long_text_is_read():
    assert list(find_scripts(["é" + "header " * 30 + THAI * 100], foreign_characters())) == ["Thai"]


@pytest.mark.parametrize("texts", [[THAI * 10**5], [THAI * 100] * 10**4], ids=["long", "many"])
def test_a_look_is_bounded(texts, monkeypatch):
    read = []
    monkeypatch.setattr(scripts, "scripts_of", lambda text: read.append(len(text)) or scripts_of(text))
    sample = find_scripts(texts, foreign_characters())["Thai"]
    assert sum(read) <= 2 * scripts.SAMPLE_TEXTS * scripts._TEXT_CHARACTERS  # noqa: SLF001 - the bound
    assert len(sample.text) <= 2 * SAMPLE_CHARACTERS + scripts.SAMPLE_TEXTS * 2
    assert len(read) <= scripts.SAMPLE_TEXTS


def test_known_scripts_are_not_looked_for():
    assert find_scripts([THAI], foreign_characters(["Thai"])) == {}
    assert list(find_scripts([THAI, "Привет, как дела?"], foreign_characters(["Thai"]))) == ["Cyrillic"]
    assert foreign_characters(list(all_scripts())).search(THAI) is None


def test_the_table_of_scripts():
    rows = all_scripts()
    ranges = sorted((*one, name) for name, row in rows.items() for one in row.ranges)
    assert all(first <= last for first, last, _ in ranges)
    assert [pair for pair in itertools.pairwise(ranges) if pair[0][1] >= pair[1][0]] == []
    assert {row.kind for row in rows.values()} == {"words", "syllables"}
    assert [tag for row in rows.values() for tag in row.languages if explain_wrong_tag(tag)] == []
    assert [name for name, row in rows.items() if not row.languages] == ["Latin"]


# ---- what tokenizers know


@pytest.fixture(scope="module")
def english(default_model_directory):
    """Return the tokenizer of the built-in model."""
    return Tokenizer.from_file(str(next(default_model_directory.glob("models/*MiniLM*/*/tokenizer.json"))))


SAMPLES = {
    "Thai": THAI,
    "Lao": "ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີ",
    "Khmer": "មនុស្សទាំងអស់កើតមកមានសេរីភាព",
    "Georgian": "ყველა ადამიანი იბადება თავისუფალი",
    "Armenian": "Բոլոր մարդիկ ծնվում են ազատ ու հավասար",
    "Ethiopic": "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና",
    "Hebrew": "כל בני האדם נולדו בני חורין",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة",
    "Devanagari": "सभी मनुष्यों को गौरव और अधिकारों के मामले में",
    "Bengali": "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা",
    "Tamil": "மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே",
    "Cyrillic": "Все люди рождаются свободными и равными",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι",
    "Korean": "모든 인간은 태어날 때부터 자유로우며",
    "Chinese": "人人生而自由，在尊严和权利上一律平等",
    "Japanese": "すべての人間は、生まれながらにして自由であり",
}


@pytest.mark.parametrize("script", SAMPLES)
def test_the_english_model_knows_no_other_script(english, script):
    assert list(scripts_of(SAMPLES[script])) == [script]
    assert not is_known(count_tokens_of_script(english, script, SAMPLES[script]), script, ("en",))


def unigram():
    """Return a tokenizer with pieces of the samples, as XLM-RoBERTa's."""
    letters = {letter for text in SAMPLES.values() for letter in text}
    words = {text[n : n + 3] for text in SAMPLES.values() for n in range(len(text))} - letters
    pieces = [("<unk>", 0.0), *((one, -9.0) for one in sorted(letters)), *((one, -3.0) for one in sorted(words))]
    return Tokenizer(models.Unigram(pieces, unk_id=0))


def bpe(*, byte_level=False):
    """Return a tokenizer that was trained on the samples."""
    tokenizer = Tokenizer(models.BPE() if byte_level else models.BPE(unk_token="<unk>"))  # noqa: S106 - no password
    words = pre_tokenizers.Metaspace()
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(use_regex=False)]) if byte_level else words
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=["<unk>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([text for text in SAMPLES.values() for _ in range(5)], trainer)
    return tokenizer


@pytest.mark.parametrize("tokenizer", [unigram(), bpe(), bpe(byte_level=True)], ids=["unigram", "bpe", "bytes"])
@pytest.mark.parametrize("script", SAMPLES)
def test_a_multilingual_tokenizer_knows_its_scripts(tokenizer, script):
    for languages in ((), ("en",), ("mul",)):
        assert is_known(count_tokens_of_script(tokenizer, script, SAMPLES[script]), script, languages)


def test_bytes_of_an_untrained_script_are_not_known():
    tokenizer = bpe(byte_level=True)
    text = "සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත"
    found = count_tokens_of_script(tokenizer, "Sinhala", text)
    assert found.tokens > 2 * found.letters
    assert not is_known(found, "Sinhala", ())


def test_unknown_letters_of_unigram_are_counted():
    found = count_tokens_of_script(unigram(), "Telugu", "నమస్కారం మీరు ఎలా ఉన్నారు")
    assert found.unknown == found.letters > 10


@pytest.mark.parametrize(
    ("measured", "script", "languages", "known"),
    [
        # Without a tokenizer, the list decides; without a list, nothing is said.
        (None, "Thai", ("en",), False),
        (None, "Thai", ("en", "th"), True),
        (None, "Thai", ("th-TH",), True),
        (None, "Thai", ("mul",), True),
        (None, "Thai", (), True),
        (None, "Chinese", ("ja",), True),
        (None, "Japanese", ("zh",), False),
        (None, "Cyrillic", ("en", "uk"), True),
        # Unknown tokens decide, whatever the list says.
        (Measurement(100, 60, 5), "Thai", ("mul",), False),
        (Measurement(100, 10, 40), "Thai", ("th",), False),
        (Measurement(100, 9, 40), "Thai", ("th",), True),
        # A rare letter of a short text does not.
        (Measurement(6, 1, 4), "Chinese", ("mul",), True),
        (Measurement(6, 3, 4), "Chinese", ("mul",), False),
        # Tokens for a letter: of letters, of words, and in between.
        (Measurement(100, 0, 100), "Cyrillic", ("en",), False),
        (Measurement(100, 0, 100), "Cyrillic", (), False),
        (Measurement(100, 0, 100), "Cyrillic", ("mul",), True),
        (Measurement(100, 0, 40), "Cyrillic", ("en",), True),
        (Measurement(100, 0, 75), "Cyrillic", ("en",), False),
        (Measurement(100, 0, 75), "Cyrillic", (), True),
        (Measurement(100, 0, 109), "Chinese", (), True),
        (Measurement(100, 0, 220), "Chinese", (), False),
        (Measurement(0, 0, 0), "Chinese", (), True),
    ],
)
def test_what_decides(measured, script, languages, known):
    assert is_known(measured, script, languages) is known
