"""The measured libraries, each in its own process, with the same weights, texts and threads.

A process loads its model, warms up with a bulk request, then answers each line on its standard input: `bulk` embeds
all texts and prints the seconds, `query` embeds one text, `some COUNT TOKENS` embeds new texts of that length, `short
COUNT` embeds new short texts, `save PATH` writes the vectors of the last pass, `peak` and `resident` print the highest
and the present resident memory in MB. bulk.py, latency.py and targets.py start it.
"""

import gzip
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = 2
QUERY = "how to run blocking code without stopping the event loop"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SHARED = Path(__file__).parents[2] / "shared" / "data" / "python-docs-chunks.jsonl.gz"


def read_texts(path):
    """Return passages from {"text": …} lines, gzipped or not; without a file, the language reference in Python."""
    if path is None and not SHARED.is_file():
        from pydoc_data import topics

        joined = [topics.topics[name] for name in sorted(topics.topics)]
        return [topic[start : start + 1200] for topic in joined for start in range(0, len(topic), 1200)][:1024]
    path = Path(path or SHARED)
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    with opened as lines:
        return [json.loads(line)["text"] for line in lines]


def new_texts(texts, tokens):
    """Yield texts of that many tokens, special ones included, cut from passages; each only once."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in texts:
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
        for start in range(0, len(offsets) - tokens + 2, tokens - 2):
            part = text[offsets[start][0] : offsets[start + tokens - 3][1]]
            if len(tokenizer.encode(part).ids) == tokens:
                yield part


def model_folder():
    from embedway import Config
    from embedway.local.loading import find_or_pull, resolve
    from embedway.weights.store import WeightsStore

    return find_or_pull(resolve(MODEL), WeightsStore(Config.load().store_settings())).path


def embedway(precision):
    from embedway import Config, Embedder

    options = {"local.threads": THREADS, "local.precision": precision}
    embedder = Embedder(config=Config.load(overrides={"cache.backend": "none", **options}))
    embedder.models.warm()
    print(embedder.models.describe().runtime, file=sys.stderr)
    return lambda texts: embedder.embed(texts).vectors


def embedway_async(precision):
    import asyncio

    from embedway import AsyncEmbedder, Config

    embedder = AsyncEmbedder(
        config=Config.load(overrides={"cache.backend": "none", "local.threads": THREADS, "local.precision": precision})
    )
    loop = asyncio.new_event_loop()
    return lambda texts: loop.run_until_complete(embedder.embed(texts)).vectors


def fastembed(batch_size):
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder = export_onnx()
    TextEmbedding.add_custom_model(
        model="local/minilm",
        pooling=PoolingType.MEAN,
        normalization=True,
        dim=384,
        model_file="model.onnx",
        sources=ModelSource(url="https://localhost/none"),
    )
    model = TextEmbedding("local/minilm", specific_model_path=str(folder), threads=THREADS)
    model.model.tokenizer.enable_truncation(256)
    return lambda texts: np.stack(list(model.embed(texts, batch_size=int(batch_size))))


def export_onnx():
    """Export the weights to an ONNX file for fastembed, once, by torch's exporter."""
    import shutil

    import torch
    from transformers import AutoModel

    folder = Path("out/minilm-onnx")
    if (folder / "model.onnx").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    source = model_folder()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(source / name, folder / name)
    encoder = AutoModel.from_pretrained(source, attn_implementation="eager").eval()

    class ByPosition(torch.nn.Module):
        """Adapter: the exporter passes inputs by position, the encoder accepts them by name."""

        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, ids, mask, types):
            return self.encoder(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = torch.ones(2, 8, dtype=torch.long)
    axes = {name: {0: "batch", 1: "sequence"} for name in [*names, "last_hidden_state"]}
    torch.onnx.export(
        ByPosition(),
        (example, example, example * 0),
        str(folder / "partial.onnx"),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    (folder / "partial.onnx").replace(folder / "model.onnx")
    return folder


def sentence_transformers(precision):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = SentenceTransformer(str(model_folder()), device="cpu", model_kwargs={"dtype": dtype})
    return lambda texts: model.encode(texts, batch_size=32, normalize_embeddings=True).astype("float32")


MAKERS = {
    "embedway": embedway,
    "embedway-async": embedway_async,
    "fastembed": fastembed,
    "sentence-transformers": sentence_transformers,
}


class Contestant:
    """Client of one process."""

    def __init__(self, name, texts_path, source=None):
        """Start the process; `source` is the checkout of embedway, if it is not this one."""
        command = [sys.executable, __file__, name, str(texts_path or "")]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(THREADS),
            "TOKENIZERS_PARALLELISM": "true",
            "RAYON_NUM_THREADS": str(THREADS),
            **({} if source is None else {"PYTHONPATH": str(Path(source) / "src")}),
        }
        self.name = name
        self.notes = tempfile.TemporaryFile(mode="w+", encoding="utf-8")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.notes,
            text=True,
            env=environment,
        )
        self.process.stdout.readline()

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self.process.wait()
            self.notes.seek(0)
            raise SystemExit(f"{self.name} ended with {code}:\n{self.notes.read()[-2000:]}")
        return float(answer)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def cpu_line():
    from embedway.local import cpu

    facts = cpu.facts()
    unit = "AMX" if "amx_bf16" in facts.flags else "AVX512-BF16" if facts.bf16 else "no bfloat16"
    return f"{facts.name}, {facts.cores} cores, {unit}; {THREADS} threads each; {time.strftime('%Y-%m-%d')}"


def serve(name, texts_path):
    import numpy as np

    kind, _, setting = name.partition(":")
    embed = MAKERS[kind](setting)
    texts = read_texts(texts_path or None)
    embed(texts[:64])
    vectors, supplies, number = None, {}, 0
    print("ready", flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "some":
            count, tokens = map(int, argument.split())
            supply = supplies.setdefault(tokens, new_texts(texts, tokens))
            some = list(itertools.islice(supply, count))
        elif command == "short":
            some = [f"{number + row} ways to rotate a log file on a server" for row in range(int(argument))]
            number += len(some)
        started = time.perf_counter()
        if command == "bulk":
            vectors = embed(texts[: int(argument)] if argument else texts)
        elif command == "query":
            embed([QUERY])
        elif command in {"some", "short"}:
            embed(some)
        elif command == "save":
            np.save(argument, vectors)
        seconds = time.perf_counter() - started
        if command in {"peak", "resident"}:
            field = {"peak": "VmHWM", "resident": "VmRSS"}[command]
            status = Path("/proc/self/status").read_text(encoding="ascii")
            seconds = next(int(row.split()[1]) for row in status.splitlines() if row.startswith(field)) / 1024
        print(seconds, flush=True)


if __name__ == "__main__":
    from embedway.opt_out import opt_out_of_telemetry

    # Applies to all libraries, so that none of them sends telemetry during the measurement.
    opt_out_of_telemetry()
    serve(sys.argv[1], sys.argv[2])
