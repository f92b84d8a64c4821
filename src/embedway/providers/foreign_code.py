"""Detection of code in a model folder that sentence-transformers and transformers would import without consent.

sentence-transformers 5 runs a folder's own Python files (`import_module_class`: `trust_remote_code or
os.path.exists(model_name_or_path)`) and imports any class that a configuration names. Version 6 requires
`trust_remote_code` in most of these cases. transformers requires it before it follows an `auto_map`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedway.errors import ConfigError, UnsupportedModelError
from embedway.files import read_regular
from embedway.providers.options import yes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.providers.base import Endpoint

#: Classes of the libraries themselves. A lower-case last part could be a module that they import, such as torch.
_CLASS = re.compile(r"(?:sentence_transformers|transformers|torch\.nn)(?:\.[A-Za-z_]\w*)*\.[A-Z]\w*")
#: Keys whose value is the dotted name of a class: in modules.json, Dense, WordEmbeddings and cross-encoders.
_NAMING = frozenset(
    {"type", "activation_function", "activation_fn", "sbert_ce_default_activation_function", "tokenizer_class"}
)
#: Keys of a table whose values are dotted names of classes, in the modules Router and Asym.
_NAMING_ALL = frozenset({"types"})
#: Keys that are passed to transformers, with the value that allows it to run code.
_ALLOWING = {"weights_only": False, "allow_all_kernels": True}
#: Large files that never name code.
_TABLES = frozenset({"tokenizer.json", "vocab.json"})
_LARGEST_BYTES = 16 * 2**20


def model_source(endpoint: Endpoint) -> str:
    """Return the folder or hub name for the library to load. Blocking: reads a folder's configurations.

    Raises ConfigError for a hub name that is also a folder in the working directory, which the library would load, and
    for a `path` that is not a folder, which it would treat as a hub name. Raises UnsupportedModelError for a folder
    that names code, unless `trust_remote_code` allows it.
    """
    path = endpoint.options.get("path")
    source = endpoint.model if path is None else path
    is_folder = Path(source).is_dir()
    if path is None and _is_shadowed(source):
        raise ConfigError(
            f"{source} is a name on the hub, but the working directory has a folder with that name, which the library "
            f'would load instead. If you mean the folder, set "./{source}"; otherwise use another working directory',
            where=endpoint.route,
            key="options.path",
        )
    if path is not None and not is_folder:
        raise ConfigError(f"{path!r} is not a folder", where=endpoint.route, key="options.path")
    if not is_folder:
        return source
    if not yes(endpoint, "trust_remote_code"):
        named = next(_named_code(Path(source)), None)
        if named is not None:
            raise UnsupportedModelError(
                f"{endpoint.model}: in its folder, {named}, which could run third-party code. If you trust the folder, "
                "allow that: set options.trust_remote_code = true on a route of the model"
            )
    # A relative path could be a hub name, for which the library queries the hub.
    return str(Path(source).absolute())


def _is_shadowed(name: str) -> bool:
    """Return whether a possible hub name (NAME or OWNER/NAME) is an existing relative path."""
    plain = not Path(name).is_absolute() and not name.startswith((".", "~"))
    return plain and name.count("/") < 2 and "\\" not in name and Path(name).exists()


def _named_code(folder: Path) -> Iterator[str]:
    """Yield each location in a folder that names third-party code, or that cannot be checked."""
    for path in _files(folder):
        place = path.relative_to(folder).as_posix()
        try:
            if path.name.endswith(".json") and path.name not in _TABLES:
                data = read_regular(path, most_bytes=_LARGEST_BYTES)
            elif stat.S_ISREG(path.stat().st_mode):
                continue
            else:
                data = None  # a pipe would block the library
        except OSError as error:
            yield f"{place} cannot be checked ({error.strerror})"
            continue
        if data is None:
            yield f"{place} cannot be checked (it is not a regular file)"
            continue
        try:
            content = json.loads(data.decode("utf-8"))
        except RecursionError:
            # The library parses it at another stack depth, so it may succeed.
            yield f"{place} cannot be checked (it is nested too deeply)"
            continue
        except ValueError:
            continue  # the library cannot read it either, and reports it
        yield from (f"{place} contains {said}" for said in _foreign(content))
        if path.name == "modules.json":
            yield from (f'{place} refers to "{outside}"' for outside in _outside(content))


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder; follow links, visit each folder once. Raises UnsupportedModelError.

    A folder that cannot be listed is an error: the library may still open files in it by name.
    """

    def refuse(error: OSError) -> None:
        raise UnsupportedModelError(f"{error.filename} cannot be listed, so it cannot be checked: {error.strerror}")

    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = [name for name in sorted(folders) if (Path(place) / name).resolve() not in seen]
        seen.update((Path(place) / name).resolve() for name in folders)
        yield from (Path(place) / name for name in sorted(files))


def _outside(modules: Any) -> Iterator[str]:
    """Yield paths of modules that are outside the folder."""
    for module in modules if isinstance(modules, list) else ():
        path = str(module.get("path", "")) if isinstance(module, dict) else ""
        if Path(path).is_absolute() or ".." in Path(path).parts:
            yield path


def _foreign(content: Any) -> Iterator[str]:
    """Yield each entry of a configuration, at any depth, that names third-party code or allows it to run."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
            for key, found in value.items():
                names = found.values() if key in _NAMING_ALL and isinstance(found, dict) else [found]
                if key in _ALLOWING and found is _ALLOWING[key]:
                    yield f"{key} = {json.dumps(found)}"
                elif key in _NAMING or key in _NAMING_ALL:
                    yield from (f'{key} = "{name}"' for name in names if _is_foreign(name))


def _is_foreign(name: object) -> bool:
    """Return whether a value is a dotted name outside the libraries. They look up other names in their own tables."""
    return isinstance(name, str) and "." in name and _CLASS.fullmatch(name) is None
