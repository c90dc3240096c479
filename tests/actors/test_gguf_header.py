"""The head of a GGUF says how long the file has to be, and any damage to it is one plain line."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.catalog import ModelError
from actors.gguf_header import read_header

ROWS = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF with metadata of every kind, and tensors of two precisions."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("a small one — naïve")
    writer.add_block_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_add_bos_token(True)
    writer.add_int8("some.int8", -3)
    writer.add_float64("some.float64", 0.1)
    writer.add_uint64("some.uint64", 1 << 40)
    writer.add_token_list(["a", "bc", "🙂"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_array("some.nested", [[1, 2], [3]])
    writer.add_tensor("first", ROWS)
    writer.add_tensor(
        "second",
        gguf.quantize(ROWS, gguf.GGMLQuantizationType.Q8_0),
        raw_dtype=gguf.GGMLQuantizationType.Q8_0,
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_it_reads_what_was_written(file: Path) -> None:
    header = read_header(file, "it")
    assert header.architecture == "llama"
    assert header.tensors == 2
    # The writer pads the last tensor to the alignment of 32 bytes.
    assert 0 <= file.stat().st_size - header.length < 32
    assert header.metadata["general.name"] == "a small one — naïve"
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    assert header.metadata["some.int8"] == -3
    assert header.metadata["some.float64"] == 0.1
    assert header.metadata["some.uint64"] == 1 << 40
    assert "tokenizer.ggml.tokens" not in header.metadata


@given(st.data())
def test_wherever_it_is_cut_it_is_refused_in_one_line(file: Path, data: st.DataObject) -> None:
    whole = file.read_bytes()
    length = read_header(file, "it").length
    cut = file.with_name("cut.gguf")
    cut.write_bytes(whole[: data.draw(st.integers(0, length - 1))])
    with pytest.raises(ModelError, match=r"the file is (truncated|not a GGUF file)") as caught:
        read_header(cut, "the file")
    assert "\n" not in str(caught.value)


def test_another_file_or_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ModelError, match="it is not a GGUF file"):
        read_header(path, "it")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 9, 0, 0))
    with pytest.raises(ModelError, match="it is GGUF version 9; versions 2 and 3 can be read"):
        read_header(path, "it")


def test_numbers_that_cannot_be_are_damage_and_end_at_once(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    path = tmp_path / "wrong.gguf"
    for at, value in ((16, 1 << 60), (8, 1 << 60), (24, 1 << 62)):  # entries, tensors, a length
        path.write_bytes(whole[:at] + struct.pack("<Q", value) + whole[at + 8 :])
        with pytest.raises(ModelError, match="it is truncated or damaged within its header"):
            read_header(path, "it")
