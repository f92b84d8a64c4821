"""Encodings of text files: byte order marks, declarations, the user's choice, and files that are no text."""

from __future__ import annotations

import codecs
import re

from embedway.errors import SourceError, UsageError
from embedway.remedies import option

#: Longer marks come first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: First bytes of common binary files.
_SIGNATURES = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old office document"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"\xcf\xfa\xed\xfe", "a program (Mach-O)"),
    (b"\xca\xfe\xba\xbe", "a program (Java or Mach-O)"),
    (b"\0asm", "a WebAssembly module"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1\0\0", "an Arrow file"),
    (b"OggS\0", "an Ogg file"),
    (b"ID3\x03", "an MP3 file"),
    (b"ID3\x04", "an MP3 file"),
    (b"wOFF", "a font"),
    (b"wOF2", "a font"),
)
_SIGNATURE_BYTES = tuple(signature for signature, _ in _SIGNATURES)
_NUL = b"\0"
_SAMPLE_BYTES = 4096
#: Declarations of an encoding: at the beginning of XML, and in the first two lines of code (PEP 263, Emacs, Vim).
_XML_DECLARATION = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)""")
_CODE_DECLARATION = re.compile(rb"""(?:[^\n]{0,200}\n)?[ \t\f]*(?:\#|//)[^\n]{0,200}?coding[:=][ \t]*([\w.-]+)""")
#: Codecs of Python for host names and literals, not for files. Some take quadratic time, or change ASCII.
_NOT_FOR_FILES = frozenset(
    {"charmap", "idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}
)
_MAX_NAME_CHARACTERS = 40
#: The ASCII characters of text files, then escapes of HZ and UTF-7, which these encodings change.
_ASCII_SAMPLE = "\t\r\n" + "".join(map(chr, range(32, 127))) + "~{ab~}~\n+AGE-"


def check_encoding(name: str) -> None:
    """Raise UsageError if a name is not that of an encoding of text files."""
    if codec_of(name) is None:
        raise UsageError(
            f"no encoding is called {name[:_MAX_NAME_CHARACTERS]!r}; "
            "examples: utf-8, cp1252, latin-1, utf-16-le, shift_jis"
        )


def codec_of(name: str) -> str | None:
    """Return Python's name of an encoding of text files; None if there is none of this name."""
    if len(name) > _MAX_NAME_CHARACTERS:  # Python keeps each unknown name in memory
        return None
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    is_text = getattr(found, "_is_text_encoding", True)
    return found.name if is_text and found.name not in _NOT_FOR_FILES else None


def ascii_codec_of(name: str) -> str | None:
    """Return Python's name of an encoding that contains ASCII; None for any other.

    A declaration that is itself in ASCII is only true of such an encoding.
    """
    codec = codec_of(name)
    try:
        return codec if codec and _ASCII_SAMPLE.encode().decode(codec) == _ASCII_SAMPLE else None
    except UnicodeError:
        return None


def is_wide(codec: str) -> bool:
    """Return whether each character has at least two bytes in an encoding, by Python's name."""
    return codec.startswith(("utf-16", "utf-32"))


def mark_of(data: bytes) -> tuple[str, int] | None:
    """Return the encoding that a byte order mark declares, and the mark's length; None without a mark."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    return None


def signature_of(data: bytes) -> str | None:
    """Return what kind of binary file begins with these bytes, or None."""
    if not data.startswith(_SIGNATURE_BYTES):  # one call for each file of text
        return None
    return next(name for signature, name in _SIGNATURES if data.startswith(signature))


def binary_fault(data: bytes, *, encoding: str | None) -> str | None:
    """Return why content is binary, or None. Text in UTF-16 without a mark is not: see `unmarked_utf16`."""
    if (name := signature_of(data)) is not None:
        return f"is {name}, not text"
    if encoding is None and mark_of(data) is None and _NUL in data and unmarked_utf16(data) is None:
        return "contains NUL bytes, so it is binary, not text"
    return None


def unmarked_utf16(data: bytes) -> str | None:
    """Return the encoding of text that looks like UTF-16 without a byte order mark: half of its bytes are NUL."""
    sample = data[:_SAMPLE_BYTES]
    pairs = len(sample) // 2
    if pairs < 2 or mark_of(data) is not None:
        return None
    even, odd = sample[0 : pairs * 2 : 2].count(0), sample[1 : pairs * 2 : 2].count(0)
    if 2 * even > pairs and 20 * odd < pairs:
        return "utf-16-be"
    return "utf-16-le" if 2 * odd > pairs and 20 * even < pairs else None


def unmarked_fault(data: bytes) -> str | None:
    """Return why text cannot be read as UTF-8 because it is UTF-16 without a mark, or None."""
    name = unmarked_utf16(data)
    if name is None:
        return None
    return f"looks like UTF-16{name[-2:].upper()} without a byte order mark; read it with {option('encoding', name)}"


def declared_encoding(data: bytes, *, is_code: bool) -> str | None:
    """Return the encoding that XML or source code declares, if it contains ASCII; else None."""
    found = _XML_DECLARATION.match(data, 0, _SAMPLE_BYTES)
    if found is None and is_code:
        found = _CODE_DECLARATION.match(data, 0, _SAMPLE_BYTES)
    return ascii_codec_of(found[1].decode("ascii")) if found else None


def is_utf8(data: bytes, *, complete: bool = True) -> bool:
    """Return whether bytes beyond ASCII are valid UTF-8; text in another encoding hardly ever is.

    Bytes that are not `complete` may end within a character.
    """
    if data.isascii() or _NUL in data:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=complete)
    except UnicodeDecodeError:
        return False
    return True


def chosen_encoding(data: bytes, encoding: str | None, *, complete: bool = True) -> str:
    """Return the encoding that the user chose; UTF-8 without a choice, or if the text cannot be in that encoding.

    It cannot if it is valid UTF-8 beyond ASCII, or if it is ASCII without NUL and the encoding is wide.
    """
    if encoding is None or is_utf8(data, complete=complete):
        return "utf-8"
    return "utf-8" if is_wide(codecs.lookup(encoding).name) and data.isascii() and _NUL not in data else encoding


def _unmarked_encoding(data: bytes, encoding: str | None, *, is_code: bool) -> str:
    if is_utf8(data):
        return "utf-8"
    declared = declared_encoding(data, is_code=is_code)
    # A false declaration of UTF-8 is no reason to refuse the user's choice.
    return declared if declared and declared != "utf-8" else chosen_encoding(data, encoding)


def decode_document(data: bytes, path: str, *, encoding: str | None, is_code: bool = False) -> str:
    """Return the text of a file, without byte order mark.

    A mark decides on the encoding. Text beyond ASCII that is valid UTF-8 is UTF-8, so that one file in another encoding
    does not change the others. Then the file's declaration, `encoding` and UTF-8 decide. Comments declare an encoding
    in code only. Raises SourceError with the line that is invalid.
    """
    marked = mark_of(data)
    name, skip = marked or (_unmarked_encoding(data, encoding, is_code=is_code), 0)
    if marked is None and encoding is None and (fault := unmarked_fault(data)):
        raise SourceError(fault, path=path)
    try:
        text = str(memoryview(data)[skip:], name)
    except UnicodeDecodeError as error:
        reason, at = _decode_fault(name, marked=marked is not None, given=encoding is not None), error.start + skip
        line = data.count(b"\n", 0, at) + 1 if name not in {"utf-16-le", "utf-16-be"} else None
        raise SourceError(reason, path=path, line=line) from None
    except UnicodeError:
        raise SourceError(f"is not valid {name}", path=path) from None
    if (at := text.find("\0")) >= 0:
        raise SourceError("contains a NUL character; remove it", path=path, line=text.count("\n", 0, at) + 1)
    return text


def _decode_fault(name: str, *, marked: bool, given: bool) -> str:
    if marked and name != "utf-8":
        return f"is not valid {name.upper()}, which its byte order mark declares; convert the file to UTF-8"
    if given and not marked:
        return f"is not valid {name}; is {option('encoding')} right?"
    return f"is not UTF-8; name its encoding, such as {option('encoding', 'cp1252')}, or convert the file"
