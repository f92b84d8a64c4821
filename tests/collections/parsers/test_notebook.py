"""Notebooks: text, code and short outputs."""

import json
from pathlib import Path

import pytest

from embedway.collections.parsers.notebook import parse_notebook
from embedway.errors import SourceError


def test_cells_become_blocks_and_images_are_never_read():
    picture = {"output_type": "display_data", "data": {"image/png": "QUJD" * 1000, "text/plain": ["<Figure>"]}}
    stream = {"output_type": "stream", "name": "stdout", "text": ["x" * 9000]}
    notebook = {
        "metadata": {"kernelspec": {"language": "Python"}},
        "cells": [
            {"cell_type": "markdown", "source": ["# Forecast\n", "Rain."]},
            {"cell_type": "code", "source": "print(1)", "outputs": [picture, stream]},
        ],
    }
    parsed = parse_notebook(json.dumps(notebook), "a.ipynb")
    assert parsed.title == "Forecast"
    assert [(block.kind, block.language) for block in parsed.blocks] == [
        ("heading", ""),
        ("paragraph", ""),
        ("code", "python"),
        ("code", ""),
    ]
    assert "<Figure>" in parsed.text
    assert "QUJD" not in parsed.text
    assert len(parsed.text) < 2100


def test_the_lines_of_texts_are_the_numbers_of_their_cells():
    cells = [
        {"cell_type": "markdown", "source": "# Forecast\n\nRain.\n\n- one\n- two\n\n| a |\n|---|\n| b |"},
        {"cell_type": "code", "source": "x = 1\n\nprint(x)", "outputs": [{"text": "1\n2\n3"}]},
        {"cell_type": "markdown", "source": "The end."},
    ]
    parsed = parse_notebook(json.dumps({"cells": cells}), "a.ipynb")
    starts = [0, parsed.text.index("x = 1"), parsed.text.index("The end")]
    assert list(parsed.line_marks) == list(zip(starts, [1, 2, 3], strict=True))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 1}', '{"cells": [1]}', "[" * 100_000])
def test_bad_notebooks_are_refused(text):
    with pytest.raises(SourceError, match="is no notebook"):
        parse_notebook(text, str(Path("a.ipynb")))
