"""Memory for a long text: it grows with its length and not with its square."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "long_text.py"
TOKENS, HEADS = 8192, 16


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_attention_never_holds_all_scores(backend, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, backend, str(TOKENS)], capture_output=True, text=True, check=True
    )
    scores_mb = 4 * HEADS * TOKENS**2 / 2**20
    assert float(done.stdout.split()[-1]) < scores_mb / 16
