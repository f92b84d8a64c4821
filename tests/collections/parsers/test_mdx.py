"""MDX: modules, comments and tags are removed."""

import time

import pytest

from embedway.collections.parsers.mdx import parse_mdx


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('import Foo from "./foo"\n# Guide\nPress.', "Guide\n\nPress."),
        ("export const a = {\n\n  b: 1,\n}\n\nText", "Text"),
        ("{/* no\nno */}\n\nText", "Text"),
        (
            '<Tabs>\n  <Tab title="npm" on={() => { x }}>\n    Inner **text**\n  </Tab>\n</Tabs>',
            "npm\nInner text",
        ),
        ("```jsx\n<Keep a={1} />\n```\n\n`<Code>` <Gone/>", "<Keep a={1} />\n\n<Code>"),
        ("import data into a table first", "import data into a table first"),
    ],
)
def test_only_markup_is_removed(source, text):
    assert parse_mdx(source, "a.mdx").text == text


@pytest.mark.parametrize("unit", ["<a ", "<A {", "{/*", "{/* */", "<A b='", "`", "import {\n", "<A {{"])
def test_hostile_mdx_takes_seconds(unit):
    begun = time.process_time()
    parse_mdx(unit * (30_000 // len(unit)), "a.mdx")
    assert time.process_time() - begun < 10
