"""Upload of a file: a multipart form that is written to the store as it arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from embedway.server.batches.refusals import ApiError, invalid
from embedway.text import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from embedway.server.batches.base import Segment
    from embedway.server.batches.contents import ContentWriter

#: Maximum size of the fields beside the file together, in bytes, and of a file's name, in characters.
_FIELD_BYTES, _NAME_LENGTH = 2**14, 255
#: Maximum parts of the form.
_MOST_PARTS = 20
_BAD_FORM = "The request body is not a valid multipart form."


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was uploaded, and the other fields of its form."""

    name: str
    segment: Segment | None
    size: int
    fields: dict[str, str]


class _Form:
    """Fields of a form, and the bytes of its file that have arrived since the last look."""

    def __init__(self) -> None:
        self.fields: dict[str, bytearray] = {}
        self.file_name: str | None = None
        self.arrived = bytearray()
        self.is_complete = False
        self._parts = 0
        self._field_bytes = 0
        self._disposition = bytearray()
        self._header = bytearray()
        self._value = bytearray()
        self._target: bytearray | None = None

    def parser(self, boundary: bytes) -> MultipartParser:
        """Return a parser that fills the form."""
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_data,
                "on_part_data": self._add_data,
                "on_end": self._end,
            },
        )

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise invalid(f"The form has more than {_MOST_PARTS} parts.", None)
        self._disposition.clear()

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition[:] = self._value
        self._header.clear()
        self._value.clear()

    def _begin_data(self) -> None:
        _, options = parse_options_header(bytes(self._disposition))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != "file":
            self._target = self.fields.setdefault(name, bytearray())
            self._target.clear()
            return
        if self.file_name is not None:
            raise invalid("The form has more than one file.", "file")
        self.file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._target = None

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._target is None:
            self.arrived += data[start:end]
            return
        self._field_bytes += end - start
        if self._field_bytes > _FIELD_BYTES:
            raise invalid(f"The fields of the form are larger than {_FIELD_BYTES} bytes.", None)
        self._target += data[start:end]

    def _end(self) -> None:
        self.is_complete = True


async def read_upload(content_type: str, body: AsyncIterator[bytes], writer: ContentWriter, most_bytes: int) -> Upload:
    """Read a form and write its file. Raises ApiError for an invalid form, and for a file that is too large."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise invalid("The request body must be a multipart form (multipart/form-data).", None)
    form = _Form()
    try:
        parser = form.parser(boundary)
        async for data in body:
            parser.write(data)
            if form.arrived:
                await _write(writer, form.arrived, most_bytes)
                form.arrived.clear()
        parser.finalize()
    except FormParserError:
        raise invalid(_BAD_FORM, None) from None
    if not form.is_complete:
        raise invalid(_BAD_FORM, None)
    if form.file_name is None:
        raise invalid("Missing required parameter: 'file'.", "file", "missing_required_parameter")
    size = writer.size
    segment = await writer.finish(0)
    if segment is None:
        raise storage_full()
    fields = {name: value.decode("utf-8", "replace") for name, value in form.fields.items()}
    return Upload(printable(form.file_name)[:_NAME_LENGTH] or "upload", segment if size else None, size, fields)


async def _write(writer: ContentWriter, data: bytearray, most_bytes: int) -> None:
    if writer.size + len(data) > most_bytes:
        message = f"The file is larger than the maximum of {most_bytes} bytes."
        raise ApiError(413, message, param="file", code="file_too_large")
    if not await writer.write(bytes(data)):
        raise storage_full()


def storage_full() -> ApiError:
    """Return the error of a tenant whose files have reached their maximum."""
    message = "Your files have reached their maximum size or number; delete some of them."
    return ApiError(400, message, param="file", code="storage_limit_exceeded")
