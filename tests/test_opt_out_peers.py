"""fastembed, sentence-transformers and magika report nothing, and send no request for a local folder."""

import functools
import json

import pytest

from quiet import assert_quiet, needs_seccomp, run_quietly
from tiny_models import tiny_reranker

#: torch's exporter raises its own warnings.
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore"), needs_seccomp]

MODEL = {"name": "elsewhere", "dimensions": 384, "max_tokens": 256, "tokenizer": "library"}
#: Only the exit hooks run: the libraries' C++ threads abort one process in some dozens at a normal exit.
SCRIPT = """
import atexit, json, os, sys, warnings
from embedway import Config, Embedder
warnings.simplefilter("ignore")
job, overrides = sys.argv[1], json.loads(sys.argv[2])
with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
    if job == "embed":
        assert embedder.embed(["a text"], model="elsewhere").vectors.shape == (1, 384)
    else:
        assert len(embedder.rerank("a query", ["a text", "another"], model="elsewhere").order) == 2
atexit._run_exitfuncs()
os._exit(0)
"""
LOOKING = """
import sys
from embedway.selection.analysis import analyze
assert analyze(sys.argv[1:]).code_by == "look and magika"
"""
#: Code whose lines match no language of the rules.
RUBY = "class Dog\n  attr_reader :name\n  def bark\n    puts name unless @name.nil?\n  end\nend\n"


@pytest.fixture
def quiet(tmp_path):
    return functools.partial(run_quietly, tmp_path)


def overrides(model, provider, **options):
    route = {"model": model["name"], "provider": provider, "options": {"device": "cpu", **options}}
    return json.dumps({"models.m": model, "routes.r": route})


def test_fastembed_is_quiet(quiet, onnx_folder):
    settings = overrides(MODEL, "fastembed", path=str(onnx_folder), model_file="model.onnx", pooling="mean")
    # urllib3, which fastembed imports, binds a socket to ::1 to check for IPv6.
    assert_quiet(quiet(SCRIPT, "embed", settings, flags=["--no-ipv6"]))


def test_sentence_transformers_is_quiet(quiet, folder):
    assert_quiet(quiet(SCRIPT, "embed", overrides(MODEL, "sentence-transformers", path=str(folder))))


def test_a_relative_folder_is_not_asked_of_the_hub(quiet, folder, tmp_path):
    (tmp_path / "place" / "models").mkdir(parents=True)
    (tmp_path / "place" / "models" / "mine").symlink_to(folder)
    assert_quiet(quiet(SCRIPT, "embed", overrides(MODEL, "sentence-transformers", path="models/mine")))


def test_a_cross_encoder_is_quiet(quiet, folder, tmp_path):
    made = tiny_reranker(tmp_path / "reranker", folder / "tokenizer.json")
    model = {"name": "elsewhere", "task": "rerank", "max_tokens": 64}
    assert_quiet(quiet(SCRIPT, "rerank", overrides(model, "sentence-transformers", path=str(made))))


def test_magika_is_quiet(quiet):
    assert_quiet(quiet(LOOKING, RUBY))
