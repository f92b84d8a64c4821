"""Export into Chroma that is killed: `killed_export.py SOURCE DESTINATION DIE_AT`.

Kills itself just before that call of the client in `commit`, counted from 1.
"""

import functools
import itertools
import os
import signal
import sys

from chromadb.api.client import Client
from chromadb.api.models.Collection import Collection

from embedway.collections.export import export_collection
from embedway.collections.stores import open_store
from embedway.collections.stores.chroma import ChromaStore

source, destination, die_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = itertools.count(1)
commit = ChromaStore.commit


def killed_before(method):
    @functools.wraps(method)
    def run(*args, **options):
        if next(calls) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **options)

    return run


def commit_with_kills(store):
    for kind, names in ((Client, ("get_collection", "delete_collection")), (Collection, ("modify", "count"))):
        for name in names:
            setattr(kind, name, killed_before(getattr(kind, name)))
    commit(store)


ChromaStore.commit = commit_with_kills
export_collection(open_store(source), destination, overwrite=True)
