"""Settings: the only reader of settings files and of the environment.

Lowest first: defaults; the Hugging Face hub's own variables (`HF_HOME`, `HF_TOKEN`, …); `embedway.toml` of
the working directory, or the files that are named instead, each laid over the one before field by field;
`EMBEDWAY_SECTION__KEY` from the environment; and what the caller passes.
"""

from embedway.config.benchmarks import ModelBenchmark
from embedway.config.keys import KEY_VARIABLES
from embedway.config.load import Config
from embedway.config.sections import Embedding, Local, Run, Tune, Weights

__all__ = ["KEY_VARIABLES", "Config", "Embedding", "Local", "ModelBenchmark", "Run", "Tune", "Weights"]
