"""Files that are one document: complete content, and limits that are told."""

import gzip
import io

import pytest

from embedway.collections import whole_files
from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.collections.whole_files import read_whole
from embedway.errors import SourceError


@pytest.mark.parametrize("about", [0, 1, 99_999, 100_000, 100_001, 10_000_000])
def test_the_content_is_complete_whatever_size_is_expected(about):
    data = b"0123456789" * 10_000
    assert read_whole(io.BytesIO(data), "a.txt", size_bytes=about) == data
    packed = gzip.compress(data)
    assert read_whole(io.BytesIO(packed), "a.txt.gz", size_bytes=len(packed), gzipped=True) == data


def test_a_file_that_is_too_large_says_so(monkeypatch):
    monkeypatch.setattr(whole_files, "MAX_FILE_BYTES", 1000)
    assert len(read_whole(io.BytesIO(b"a" * 1000), "a.txt", size_bytes=10)) == 1000
    for stream, gzipped in ((b"a" * 1001, False), (gzip.compress(b"a" * 1001), True)):
        with pytest.raises(SourceError, match=r"a\.txt: has more than 1,000 bytes"):
            read_whole(io.BytesIO(stream), "a.txt", size_bytes=len(stream), gzipped=gzipped)


def test_a_bomb_is_refused_by_name_before_it_is_unpacked(tmp_path):
    """240 MB of zeros in 240 kB: only the first part is unpacked."""
    path = tmp_path / "bomb.txt.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(240):
            file.write(b"a" * 1_000_000)
    read = []

    class Counted(io.BytesIO):
        def read(self, size=-1):
            read.append(len(data := super().read(size)))
            return data

    with pytest.raises(SourceError, match="unpacks to more than 250 times its size"):
        read_whole(Counted(path.read_bytes()), path.name, size_bytes=path.stat().st_size, gzipped=True)
    assert sum(read) < path.stat().st_size / 2
    faults = []
    documents = read_files(
        find_sources([str(path)], ReadOptions()), ReadOptions(), on_bad_row=faults.append, counter=ByteCounter()
    )
    assert list(documents) == []
    assert [fault.path for fault in faults] == [str(path)]
