"""Check the shipped quality scores of the scale mteb-en against their board, by full repository name.

    git clone https://github.com/embeddings-benchmark/leaderboard
    python benchmarks/scores.py leaderboard/boards_data/en/data_overall/default.jsonl [--write]

Compares each score of `catalog/benchmarks.toml` with the board's average of that repository, and that average with the
mean of its categories. Models of other repositories with the same last name are listed too. Exits with 1 if a score
differs. `--write` stores the rows that were used in `boards/mteb-en.json`, from which the tests repeat the comparison.
"""

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import embedway.catalog
from embedway.catalog.benchmarks import MTEB_EN

STORED = Path(__file__).parent / "boards" / "mteb-en.json"
AVERAGE = "Average (56 datasets)"
_LINK = re.compile(r'href="(?P<url>[^"]+)"[^>]*>(?P<name>[^<]+)<')
_CATEGORY = re.compile(r"^\w+ Average \((?P<datasets>\d+) datasets\)$")


def full_name(model):
    """Return OWNER/NAME of a board's link to the Hugging Face hub, or HOST/NAME of another link."""
    link = _LINK.search(model)
    if link is None:
        return model
    host, path = urlsplit(link["url"]).netloc, urlsplit(link["url"]).path.strip("/")
    return path if host == "huggingface.co" else f"{host}/{link['name']}"


def read_board(path):
    """Return the complete rows of a board whose full names are unique: the average, and those of categories."""
    board, seen, doubled = {}, set(), set()
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        numbers = {key: value for key, value in row.items() if key == AVERAGE or _CATEGORY.match(key)}
        if all(isinstance(value, (int, float)) for value in numbers.values()):
            name = full_name(row["Model"])
            board[name] = numbers
            doubled |= {name} & seen
            seen.add(name)
    return {name: numbers for name, numbers in board.items() if name not in doubled}


def mean_of_categories(row):
    """Recompute a row's average over its datasets from the averages of its categories."""
    weights = {key: int(match["datasets"]) for key in row if (match := _CATEGORY.match(key))}
    return sum(row[key] * weight for key, weight in weights.items()) / sum(weights.values())


def shipped():
    """Return the shipped scores of the board, by model: the full name on the board, and the score."""
    text = (Path(embedway.catalog.__file__).parent / "benchmarks.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["models"]
    return {
        name: (row.get("listed_as", name), row["quality"]) for name, row in rows.items() if row.get("board") == MTEB_EN
    }


def differences(board):
    """Return what is wrong with the shipped scores, by this board."""
    wrong = []
    for model, (name, score) in shipped().items():
        row = board.get(name)
        if row is None:
            wrong.append(f"{model}: {name} is not on the board once with an average")
        elif row[AVERAGE] != score:
            wrong.append(f"{model}: {score}, but {name} has {row[AVERAGE]}")
        elif abs(mean_of_categories(row) - score) > 0.011:  # each category is rounded to 0.01
            wrong.append(f"{model}: {score}, but the categories of {name} have the mean {mean_of_categories(row):.3f}")
    return wrong


def namesakes(board):
    """Return the rows of other repositories with the last name of a shipped model."""
    used = {name for name, _ in shipped().values()}
    lasts = {name.rpartition("/")[2].casefold() for name in used}
    return sorted(name for name in board if name not in used and name.rpartition("/")[2].casefold() in lasts)


def main():
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("board", type=Path)
    parser.add_argument("--write", action="store_true", help=f"store the used rows in {STORED.name}")
    given = parser.parse_args()
    board = read_board(given.board)
    for model, (name, score) in shipped().items():
        print(f"{score:6.2f}  {model}{'' if name == model else f' ({name})'}")
    for name in namesakes(board):
        print(f"{board[name][AVERAGE]:6.2f}  not used: {name}")
    wrong = differences(board)
    if wrong:
        sys.exit("\n".join(wrong))
    if given.write:
        source = json.loads(STORED.read_text()) if STORED.is_file() else {}
        rows = {name: board[name] for name in sorted({name for name, _ in shipped().values()})}
        STORED.write_text(json.dumps({**source, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
