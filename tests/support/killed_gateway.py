"""A gateway of files and batches that is killed. Prints its port. Arguments: the kind, folder and URL of the store."""

import sys
import threading
from pathlib import Path

from batch_gateway import FakeCompute, make_app, serving_batches
from batch_stores import open_stores

if __name__ == "__main__":
    kind, folder, url = sys.argv[1:]
    (store,) = open_stores(kind, Path(folder), url)
    with serving_batches(make_app(store, FakeCompute(), runs=False)) as address:
        print(address.rpartition(":")[2], flush=True)  # noqa: T201
        threading.Event().wait()
