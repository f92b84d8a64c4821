"""Write the section "All metrics" of docs/monitoring.md from the table in the source.

python docs/examples/print_metrics.py
"""

from pathlib import Path

from embedway.telemetry.names import METRICS

PAGE = Path(__file__).parents[1] / "monitoring.md"
TITLE = "## All metrics\n"


def section() -> str:
    """Return the section of the page, with its title."""
    rows = ["| metric | kind | labels | |", "| --- | --- | --- | --- |"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        buckets = f" Buckets: {', '.join(f'{bucket:g}' for bucket in metric.buckets)}." if metric.buckets else ""
        rows.append(f"| `{metric.exposed}` | {metric.kind} | {labels} | {metric.help}{buckets} |")
    return "\n".join([TITLE, *rows]) + "\n"


def page() -> str:
    """Return the page with a new section."""
    return PAGE.read_text("utf-8").partition(TITLE)[0] + section()


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
