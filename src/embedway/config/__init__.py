"""Settings: the only reader of settings files and of the environment.

Lowest first: defaults; the Hugging Face hub's own variables (`HF_HOME`, `HF_TOKEN`, …); `embedway.toml` of
the working directory, or the files that are named instead, each merged over the one before field by field;
`EMBEDWAY_SECTION__KEY` from the environment; and the arguments of the caller.
"""

from embedway.config.benchmarks import ModelBenchmark
from embedway.config.known_services import KEY_VARIABLES
from embedway.config.load import Config

__all__ = ["KEY_VARIABLES", "Config", "ModelBenchmark"]
