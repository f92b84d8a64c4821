"""With magika installed, it says what the look of lines does not."""

import pytest

from embedway.stages.analyze import analyze, looks_like_code

pytestmark = pytest.mark.peers

#: Code whose lines begin and end as those of no language that the look knows.
SHELL = """set -euo pipefail
cd "$HOME/work"
find . -name '*.log' -mtime +7 -print0 | xargs -0 rm -f
tar czf "backup-$(date +%F).tgz" --exclude .git src docs tests
rsync -a --delete "backup-$(date +%F).tgz" "$REMOTE:/srv/backups/"
echo "done: $(du -sh . | cut -f1)"
"""
PROSE = "A vector belongs to one space, and distances between two spaces mean nothing to whoever searches. " * 5


def test_magika_finds_code_that_the_look_misses():
    assert not looks_like_code(SHELL)
    analysis = analyze([SHELL])
    assert analysis.code_by == "look and magika"
    assert analysis.contains_code
    assert not analyze([PROSE]).contains_code
