"""Sections of reStructuredText sources, found by a scan of lines that shares no code with embedway's parser.

A section is a heading with what follows it until the next heading of the same or a higher level, or a definition such
as `.. function::` with its indented lines. The benchmark's questions name sections, and a chunk answers a question if
it has a line of the section's body.
"""

import random
import re
from dataclasses import dataclass

ADORNMENT = re.compile(r"^([=\-`:.'\"~^_*+#])\1{2,}\s*$")
DEFINITION = re.compile(
    r"^(\s*)\.\. (?:py:|c:)?(?:function|method|class|data|attribute|exception|decorator|classmethod|staticmethod|"
    r"coroutinefunction|coroutinemethod|abstractmethod|awaitablefunction|opcode|option|describe|pdbcommand|envvar|"
    r"cmdoption|index2|keyword|token|macro|type|module2)::\s+(.+)$"
)
ROLE = re.compile(
    r":[\w:+-]+:`[~!]?([^`<]*?)(?:\s*<[^`]*>)?`|``([^`]*)``|`([^`<]*?)\s*<[^`]*>`_+|`([^`]*)`|\*\*?([^*\n]+)\*\*?"
)


@dataclass
class Section:
    """Section of a source. `body` is the first line after the heading or signature, `end` the line after the last."""

    title: str
    start: int
    body: int
    end: int
    is_definition: bool


def plain(text):
    """Return text without inline markup."""
    return ROLE.sub(lambda m: next((g for g in m.groups() if g is not None), ""), text)


def sections(source):
    """Return the sections of a source, in order."""
    lines = source.split("\n")
    found, levels = [], []
    number = 0
    while number < len(lines):
        line = lines[number]
        under = lines[number + 1] if number + 1 < len(lines) else ""
        over = lines[number - 1] if number else ""
        if line.strip() and line[0] != "." and ADORNMENT.match(under) and not ADORNMENT.match(line):
            if line[:1].isspace() and not ADORNMENT.match(over):
                number += 1
                continue
            if len(under.strip()) >= min(len(line.strip()), 4) and (not over.strip() or ADORNMENT.match(over)):
                style = (under[0], bool(ADORNMENT.match(over)))
                if style not in levels:
                    levels.append(style)
                found.append([plain(line.strip()), number + 1, number + 3, levels.index(style), False])
                number += 2
                continue
        if match := DEFINITION.match(line):
            body = number + 1
            while body < len(lines) and lines[body].strip():
                body += 1
            found.append([match[2].strip(), number + 1, min(body + 1, len(lines)), 100 + len(match[1]), True])
        number += 1
    made = []
    for at, (title, start, body, level, is_definition) in enumerate(found):
        # A title stands for its introduction: every chunk of the page would answer otherwise.
        inner = 99 if level == 0 and not any(one[3] == 0 for one in found[:at]) else level
        end = next((one[1] for one in found[at + 1 :] if one[3] <= inner), len(lines) + 1)
        if is_definition:
            indent = level - 100
            end = min(end, _dedented(lines, start, end, indent))
        made.append(Section(title, start, min(body, max(end - 1, start)), end, is_definition))
    return made


def _dedented(lines, start, end, indent):
    for number in range(start, end - 1):
        text = lines[number]
        if text.strip() and len(text) - len(text.lstrip()) <= indent:
            return number + 1
    return end


def find(made, name):
    """Return the sections with a title, or the definitions with a name."""
    wanted = name.casefold()
    titles = [one for one in made if not one.is_definition and one.title.casefold() == wanted]
    if titles:
        return titles
    return [
        one for one in made if one.is_definition and _is_name(re.split(r"[\s(\[]", one.title)[0].casefold(), wanted)
    ]


def _is_name(name, wanted):
    return name == wanted or name.endswith(f".{wanted}")


def known_items(sources, count, seed=0):
    """Return known-item questions: half are headings, half first sentences of sections, each unique in all sources.

    A question is (text, file, section, kind).
    """
    headings, sentences, seen = [], [], {}
    for file, source in sources.items():
        lines = source.split("\n")
        for one in sections(source):
            words = sum(len(line.split()) for line in lines[one.body - 1 : one.end - 1])
            seen[one.title.casefold()] = seen.get(one.title.casefold(), 0) + 1
            if words < 40:
                continue
            if not one.is_definition and len(one.title.split()) >= 2:
                headings.append((one.title, file, one, "heading"))
            if sentence := _first_sentence(lines, one):
                sentences.append((sentence, file, one, "sentence"))
    choice = random.Random(seed)  # noqa: S311  a sample, not a secret
    headings = [one for one in headings if seen[one[0].casefold()] == 1]
    texts = [one[0] for one in sentences]
    sentences = [one for one in sentences if texts.count(one[0]) == 1]
    return choice.sample(headings, count // 2) + choice.sample(sentences, count - count // 2)


def _first_sentence(lines, one):
    """Return the first sentence of a section that begins with a paragraph; it has 8 to 40 words."""
    paragraph = []
    for line in lines[one.body - 1 : one.end - 1]:
        if not line.strip():
            if paragraph:
                break
            continue
        paragraph.append(line.strip())
    text = " ".join(paragraph)
    if not text or not text[0].isalpha() or "::" in text:
        return None
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z:`*])", text)[0].rstrip(":")
    return plain(sentence) if 8 <= len(sentence.split()) <= 40 else None
