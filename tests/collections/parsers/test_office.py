"""Word and PowerPoint files: structure, pages, and files that are refused."""

import io
import sys
import zipfile

import docx
import pptx
import pytest
from docx.oxml import OxmlElement
from pptx.util import Inches

from embedway.collections.parsers.office import parse_docx, parse_pptx
from embedway.errors import MissingExtraError, SourceError


def saved(document):
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def shown(parsed):
    return [(block.kind, block.level, parsed.text[block.start : block.end]) for block in parsed.blocks]


def changed(data, name, change):
    """Return a package in which the content of one entry is changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after:
        for entry in before.namelist():
            content = before.read(entry)
            after.writestr(entry, change(content) if entry == name else content)
    return file.getvalue()


def manual():
    document = docx.Document()
    document.add_paragraph("Pump manual", style="Title")
    document.add_heading("Valves", 2)
    paragraph = document.add_paragraph("Open the ")
    inserted = OxmlElement("w:ins")
    inserted.append(paragraph.add_run("main valve.").element)
    document.element.body.p_lst[-1].append(inserted)
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("second", style="List Bullet")
    document.add_paragraph("x = 1").runs[0].font.name = "Consolas"
    document.add_paragraph("").paragraph_format.space_after = 0
    document.add_paragraph("y = 2").runs[0].font.name = "Consolas"
    table = document.add_table(3, 2)
    for row, cells in zip(table.rows, [("Name", "Limit"), ("flow", "9"), ("heat", "7")], strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    document.add_paragraph("Said.", style="Quote")
    return document


def test_word_keeps_headings_lists_code_and_tables():
    parsed = parse_docx(saved(manual()), "a.docx")
    assert parsed.title == "Pump manual"
    assert shown(parsed) == [
        ("heading", 1, "Pump manual"),
        ("heading", 2, "Valves"),
        ("paragraph", 0, "Open the main valve."),
        ("list", 0, "- first\n- second"),
        ("code", 0, "x = 1\n\ny = 2"),
        ("table", 0, "Name | Limit\nflow heat | 9\n | 7"),
        ("quote", 0, "Said."),
    ]
    table = parsed.blocks[5]
    assert parsed.text[table.start : table.header_end] == "Name | Limit"


def test_slides_have_pages_titles_tables_and_notes():
    deck = pptx.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[0])
    first.shapes.title.text = "Pumps"
    second = deck.slides.add_slide(deck.slide_layouts[1])
    second.shapes.title.text = "Limits"
    frame = second.placeholders[1].text_frame
    frame.text = "flow"
    frame.add_paragraph().text = "heat"
    frame.paragraphs[1].level = 1
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "In a group"
    table = second.shapes.add_table(2, 2, 0, 0, Inches(2), Inches(1)).table
    for number, text in enumerate(["Name", "Limit", "flow", "9"]):
        table.cell(number // 2, number % 2).text = text
    second.notes_slide.notes_text_frame.text = "Speak slowly"
    parsed = parse_pptx(saved(deck), "a.pptx")
    assert parsed.title == "Pumps"
    assert shown(parsed) == [
        ("heading", 1, "Pumps"),
        ("heading", 2, "Limits"),
        ("list", 0, "- flow\n  - heat"),
        ("paragraph", 0, "In a group"),
        ("table", 0, "Name | Limit\nflow | 9"),
        ("paragraph", 0, "Speak slowly"),
    ]
    assert list(parsed.page_marks) == [(0, 1), (parsed.blocks[1].start, 2)]
    table_block = parsed.blocks[4]
    assert parsed.text[table_block.start : table_block.header_end] == "Name | Limit"


@pytest.mark.parametrize("parse", [parse_docx, parse_pptx])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no ZIP package"),
        (b"PK\x03\x04", "no ZIP package"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "is encrypted"),
        (b"PK\x01\x02" * 20_001, "entries"),
    ],
)
def test_no_package(parse, data, reason):
    with pytest.raises(SourceError, match=reason):
        parse(data, "a.docx")


def test_damaged_parts_are_refused():
    data = saved(manual())
    with pytest.raises(SourceError, match="no valid PPTX"):
        parse_pptx(data, "a.pptx")
    with pytest.raises(SourceError, match="no valid DOCX"):
        parse_docx(changed(data, "word/document.xml", lambda content: content[:200]), "a.docx")
    with pytest.raises(SourceError, match="no valid DOCX"):
        parse_docx(changed(data, "word/document.xml", lambda _: b"<a>" * 5000 + b"</a>" * 5000), "a.docx")
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0xFF
    with pytest.raises(SourceError, match="is damaged"):
        parse_docx(bytes(broken), "a.docx")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_document_types_are_refused(encoding):
    def add_type(_):
        entities = '<!ENTITY a "aaaaaaaaaa">' + "".join(
            f'<!ENTITY {name} "{f"&{other};" * 10}">' for other, name in zip("abcdefgh", "bcdefghi", strict=True)
        )
        return f"<?xml version='1.0' encoding='{encoding}'?><!DOCTYPE w [{entities}]><w>&i;</w>".encode(encoding)

    with pytest.raises(SourceError, match="document type"):
        parse_docx(changed(saved(manual()), "word/document.xml", add_type), "a.docx")


def test_bombs_are_refused():
    data = saved(manual())
    for content in (b"\0" * (40 << 20), b"<a/>" * (17 << 20)):
        bomb = changed(data, "word/document.xml", lambda _, content=content: content)
        assert len(bomb) < 1 << 18
        with pytest.raises(SourceError, match="too large"):
            parse_docx(bomb, "a.docx")


def test_false_sizes_are_not_believed():
    data = changed(saved(manual()), "word/document.xml", lambda _: b"\0" * (40 << 20))
    size = (40 << 20).to_bytes(4, "little")
    assert size in data
    with pytest.raises(SourceError, match=r"too large|is damaged"):
        parse_docx(data.replace(size, (100).to_bytes(4, "little")), "a.docx")


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "docx", None)
    monkeypatch.setitem(sys.modules, "pptx", None)
    for parse in (parse_docx, parse_pptx):
        with pytest.raises(MissingExtraError, match=r"embedway\[office\]"):
            parse(b"", "a.docx")
