"""Arrays of npz and safetensors files: what is read, and what is refused instead of guessed."""

import json
import random

import numpy as np
import pytest
from safetensors.numpy import save_file

from skact.array_files import open_arrays


def raw_safetensors(path, code, shape, content):
    header = json.dumps({"a": {"dtype": code, "shape": shape, "data_offsets": [0, len(content)]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + content)
    return path


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int32", "int64", "uint8", "bool"]
)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_arrays_of_all_number_formats_are_read(tmp_path, dtype, ending):
    array = (np.arange(6).reshape(2, 3) % 4).astype(dtype)
    path = tmp_path / f"a.{ending}"
    np.savez(path, a=array) if ending == "npz" else save_file({"a": array}, path)
    entry = open_arrays(path)["a"]()
    assert (entry.dtype, entry.shape) == (dtype, (2, 3))
    np.testing.assert_array_equal(entry.read(), array)
    if entry.place is not None:
        np.testing.assert_array_equal(np.memmap(path, dtype, "r", entry.place, (2, 3)), array)
    assert (entry.place is None) == (ending == "npz")


def test_bfloat16_is_the_upper_half(tmp_path):
    values = np.array([1.0, -2.5, 3e38, 0.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    path = raw_safetensors(tmp_path / "a.safetensors", "BF16", [4], halves.tobytes())
    entry = open_arrays(path)["a"]()
    assert entry.dtype == "bfloat16"
    np.testing.assert_allclose(entry.read(), values, rtol=2**-7)


def test_unknown_number_formats_are_not_guessed(tmp_path):
    path = raw_safetensors(tmp_path / "a.safetensors", "F8_E4M3", [4], b"abcd")
    entry = open_arrays(path)["a"]()
    assert entry.dtype == "F8_E4M3"
    with pytest.raises(ValueError, match=r"a\.safetensors: the number format 'F8_E4M3' cannot"):
        entry.read()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_arrays(tmp_path / "a.npz")
    (tmp_path / "a.pt").touch()
    with pytest.raises(ValueError, match=r"a\.pt: arrays are read from .* unpickled"):
        open_arrays(tmp_path / "a.pt")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_damaged_files_give_arrays_of_the_shape_they_say_or_an_error(tmp_path, ending):
    path, draw = tmp_path / f"a.{ending}", random.Random(0)
    arrays = {"a": np.arange(12.0).reshape(3, 4)}
    np.savez(path, **arrays) if ending == "npz" else save_file(arrays, path)
    content, refusals = path.read_bytes(), []
    for _ in range(300):
        damaged = bytearray(content)
        if draw.random() < 0.3:
            damaged = damaged[: draw.randrange(len(damaged))]
        else:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            for entry in open_arrays(path).values():
                held = entry()
                assert held.read().shape == held.shape
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all(str(path) in said for said in refusals)
