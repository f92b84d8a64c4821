"""Write the section "All settings" of docs/settings.md from the settings and their comments in the source.

python docs/examples/print_settings.py
"""

import json
import re
from pathlib import Path, PurePath
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr

from embedway.config import Config, sections

PAGE = Path(__file__).parents[1] / "settings.md"
TITLE = "## All settings\n"


def section() -> str:
    """Return the section of the page, with its title."""
    parts = [TITLE, "Paths without a default here are in the user's folders; `embedway doctor` shows them.\n"]
    for name, field in Config.model_fields.items():
        parts += tables(name, field.annotation)
    return "\n".join(parts)


def tables(key, annotation):
    """Return a table for a section of settings, and for each kind of table with names in it."""
    named = get_args(annotation)[-1:] if get_origin(annotation) is dict else ()
    kind = named[0] if named else annotation
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    key = f"{key}.NAME" if named else key
    meanings = comments(kind)
    about = kind.__doc__.partition("\n")[0].partition("`: ")[2] or kind.__doc__.partition("\n")[0]
    rows = [f"### `[{key}]`", f"{about[0].upper()}{about[1:]}\n", "| key | default | |", "| --- | --- | --- |"]
    inner = []
    for name, field in kind.model_fields.items():
        meaning = " ".join(part for part in (meanings.get(name, ""), choices(field.annotation)) if part)
        rows.append(f"| `{key}.{name}` | {default(field)} | {meaning} |")
        inner += tables(f"{key}.{name}", field.annotation)
    return ["\n".join(rows) + "\n", *inner]


def comments(kind):
    """Return the comment above each field of a section, by its name."""
    sources = [path.read_text("utf-8") for path in Path(sections.__file__).parent.glob("*.py")]
    body = next(text.partition(start)[2] for text in sources if (start := f"class {kind.__name__}(") in text)
    found = re.findall(r"((?:    #: .*\n)+)    (\w+): ", re.split(r"\n(?=[@\w])", body)[0])
    return {name: " ".join(line.strip()[3:] for line in text.splitlines()).replace("|", "\\|") for text, name in found}


def choices(annotation):
    """Return the allowed texts of a field, if there are only some."""
    texts = get_args(annotation) if get_origin(annotation) is Literal else ()
    return f"One of {', '.join(f'`{text}`' for text in texts)}." if texts else ""


def default(field):
    """Return a default as it is written in a file."""
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if value is None or isinstance(value, (PurePath, dict)):
        return ""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{json.dumps(value)}`"


def page() -> str:
    """Return the page with a new section."""
    return PAGE.read_text("utf-8").partition(TITLE)[0] + section()


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
