"""Table of docs/conformance.md, and an upstream for gateways that are judged.

    python benchmarks/conformance.py upstream TOKENIZER.json [--port 18998]
    python benchmarks/conformance.py table NAME=REPORT.json...

`upstream` serves the API without a fault, so that every fault that is found belongs to the gateway before it. `table`
prints the verdicts of reports, which `embedway conformance URL --json` writes.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    upstream = commands.add_parser("upstream")
    upstream.add_argument("tokenizer", type=Path)
    upstream.add_argument("--port", type=int, default=18998)
    upstream.set_defaults(run=lambda given: asyncio.run(serve(given.tokenizer, given.port)))
    table = commands.add_parser("table")
    table.add_argument("reports", nargs="+", metavar="NAME=REPORT.json")
    table.set_defaults(run=lambda given: print_table(dict(report.split("=", 1) for report in given.reports)))
    given = parser.parse_args()
    given.run(given)


async def serve(tokenizer, port):
    from aiohttp import web
    from tokenizers import Tokenizer

    from judged_server import JudgedServer

    plain = Tokenizer.from_file(str(tokenizer))
    plain.no_truncation()
    plain.no_padding()
    runner = web.AppRunner(JudgedServer(plain).app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"http://127.0.0.1:{port}")
    await asyncio.Event().wait()


def print_table(reports):
    """Print a table of verdicts in Markdown, and below it what was seen of those that are not passed."""
    read = {name: json.loads(Path(path).read_text("utf-8")) for name, path in reports.items()}
    verdicts = {name: {check["name"]: check for check in report["checks"]} for name, report in read.items()}
    names = list(dict.fromkeys(check for report in verdicts.values() for check in report))
    print(f"| check | {' | '.join(read)} |")
    print(f"| --- |{' --- |' * len(read)}")
    for name in names:
        cells = [verdicts[server].get(name, {}).get("verdict", "") for server in read]
        print(f"| `{name}` | {' | '.join(f'**{cell}**' if cell == 'failed' else cell for cell in cells)} |")
    print(f"| passed, failed, warned, skipped | {' | '.join(counts(report) for report in read.values())} |")
    for server, report in read.items():
        print(f"\n**{server}**\n")
        for check in report["checks"]:
            if check["verdict"] in {"failed", "warned"}:
                print(f"- `{check['name']}` {check['verdict']}: {check['seen']}")


def counts(report):
    return ", ".join(str(report["counts"][status]) for status in ("passed", "failed", "warned", "skipped"))


if __name__ == "__main__":
    main()
