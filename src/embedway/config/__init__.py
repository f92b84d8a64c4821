"""Settings. Only this package reads settings files and the environment.

Later sources override earlier ones, field by field: defaults; the Hugging Face hub's own variables (`HF_HOME`,
`HF_TOKEN`, …); `embedway.toml` in the working directory, or the named files in order; `EMBEDWAY_SECTION__KEY`
variables; and the caller's arguments.
"""

from embedway.config.benchmarks import ModelBenchmark
from embedway.config.known_services import KEY_VARIABLES
from embedway.config.load import Config

__all__ = ["KEY_VARIABLES", "Config", "ModelBenchmark"]
