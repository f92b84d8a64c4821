"""Reading safetensors: exact numbers, no copies of float32, and errors that name the damage."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from embedway.errors import UnsupportedModelError, WeightsError
from embedway.local.tensors import Tensors


def write(path, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def one(path, kind, array):
    return write(path, {"x": {"dtype": kind, "shape": array.shape, "data_offsets": [0, array.nbytes]}}, array.tobytes())


def test_float32_is_a_view_of_the_file(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = one(tmp_path / "a.safetensors", "F32", array)
    tensors = Tensors([path])
    found = tensors["x"]
    np.testing.assert_array_equal(found, array)
    assert np.shares_memory(found, np.frombuffer(tensors.maps[0], np.uint8))


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50))
def test_bfloat16_is_the_upper_half_of_float32(tmp_path_factory, bits):
    halves = np.array(bits, np.uint16)
    path = one(tmp_path_factory.mktemp("t") / "a.safetensors", "BF16", halves)
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(Tensors([path])["x"], expected)


@pytest.mark.parametrize(("kind", "dtype"), [("F16", np.float16), ("F64", np.float64)])
def test_other_floats_become_float32(tmp_path, kind, dtype):
    array = np.array([[1.5, -2.25], [0.1, 65504]], dtype)
    found = Tensors([one(tmp_path / "a.safetensors", kind, array)])["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array.astype(np.float32))


def test_several_files_are_one_set(tmp_path):
    arrays = {name: np.full((2,), number, np.float32) for number, name in enumerate("ab")}
    paths = []
    for name, array in arrays.items():
        header = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}
        paths.append(write(tmp_path / f"{name}.safetensors", header, array.tobytes()))
    tensors = Tensors(paths)
    assert sorted(tensors) == ["a", "b"]
    assert tensors["b"].tolist() == [1, 1]
    assert tensors.get("c") is None
    with pytest.raises(UnsupportedModelError, match="the tensor c is missing"):
        tensors["c"]


def test_a_tensor_in_two_files_is_an_error(tmp_path):
    files = [one(tmp_path / f"{name}.safetensors", "F32", np.full(2, name, np.float32)) for name in (1, 2)]
    with pytest.raises(WeightsError, match=r"2\.safetensors: tensor x is also in another file of the model"):
        Tensors(files)


def test_unaligned_numbers_are_read(tmp_path):
    body = b"\x00\x00" + np.array([1, 2], np.float32).tobytes()
    header = {
        "half": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "x": {"dtype": "F32", "shape": [2], "data_offsets": [2, 10]},
    }
    assert Tensors([write(tmp_path / "a.safetensors", header, body)])["x"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "body", "named"),
    [
        (b"{", b"", "not JSON"),
        ({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\x00" * 15, "tensor x does not fit"),
        ({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}}, b"\x00" * 16, "tensor x does not fit"),
        ({"x": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}, b"\x00" * 16, "tensor x does not fit"),
        ({"x": {"shape": [4], "data_offsets": [0, 16]}}, b"\x00" * 16, "tensor x"),
        ({"x": 3}, b"", "tensor x"),
        ([], b"", "header"),
    ],
    ids=str,
)
def test_damage_is_named(tmp_path, header, body, named):
    path = write(tmp_path / "a.safetensors", header, body)
    with pytest.raises(WeightsError, match=named) as caught:
        Tensors([path])
    assert str(path) in str(caught.value)


def test_types_that_are_not_read_are_named(tmp_path):
    with pytest.raises(UnsupportedModelError, match="tensor x has the unsupported type F8_E4M3"):
        Tensors([one(tmp_path / "a.safetensors", "F8_E4M3", np.zeros(4, np.uint8))])


@pytest.mark.parametrize("content", [b"", b"\x00" * 4, (10**12).to_bytes(8, "little"), b"\xff" * 30])
def test_what_is_no_safetensors_file_is_named(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        Tensors([path])


def test_every_float16_is_exact(tmp_path):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    tensors = Tensors([one(tmp_path / "a.safetensors", "F16", halves)])
    np.testing.assert_array_equal(tensors["x"], halves.astype(np.float32))
    assert not np.shares_memory(tensors["x"], np.frombuffer(tensors.maps[0], np.uint8))


@given(
    arrays=st.dictionaries(
        st.text("abc.", min_size=1, max_size=6),
        st.tuples(st.sampled_from(["f2", "f4", "f8", "i4", "i8"]), st.lists(st.integers(0, 3), max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_what_the_library_writes_is_read(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("t") / "a.safetensors"
    made = {
        name: np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
        for name, (dtype, shape) in arrays.items()
    }
    save_file(made, path)
    tensors = Tensors([path])
    assert set(tensors) == set(made)
    for name, array in made.items():
        assert tensors.shape(name) == array.shape
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].dtype == (np.float32 if array.dtype.kind == "f" else array.dtype)


def test_two_reads_share_the_mapped_pages(tmp_path):
    path = one(tmp_path / "a.safetensors", "F32", np.arange(4, dtype=np.float32))
    tensors = Tensors([path])
    assert np.shares_memory(tensors["x"], tensors["x"])
    before = tensors["x"].tolist()
    tensors.release_pages()
    assert tensors["x"].tolist() == before


def test_a_file_that_was_cut_short_names_the_tensor_that_is_gone(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"first": np.zeros(4, np.float32), "second": np.zeros(4, np.float32)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match="tensor second does not fit"):
        Tensors([path])
    path.write_bytes(whole[:20])
    with pytest.raises(WeightsError, match="truncated"):
        Tensors([path])


@pytest.mark.parametrize(
    ("offsets", "body", "named"),
    [
        ({"a": [0, 8], "b": [4, 12]}, 12, "overlaps"),
        ({"a": [0, 8], "b": [12, 20]}, 20, "gap"),
        ({"a": [0, 8], "b": [8, 16]}, 20, "4 bytes follow the last tensor"),
        ({"a": [0.9, 8.7]}, 8, "entry of tensor a is damaged"),
    ],
    ids=str,
)
def test_tensors_lie_side_by_side(tmp_path, offsets, body, named):
    header = {name: {"dtype": "F32", "shape": [2], "data_offsets": place} for name, place in offsets.items()}
    with pytest.raises(WeightsError, match=named):
        Tensors([write(tmp_path / "a.safetensors", header, b"\x00" * body)])


def test_a_negative_shape_is_damage(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}
    with pytest.raises(WeightsError, match="tensor a does not fit"):
        Tensors([write(tmp_path / "a.safetensors", header, b"\x00" * 8)])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"a\.safetensors is missing"):
        Tensors([tmp_path / "a.safetensors"])
