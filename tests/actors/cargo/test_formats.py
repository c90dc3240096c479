"""Files of steering vectors: what is written is read, by us and by those whose formats they are."""

import json
import struct
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from actors.cargo.formats import FORMATS, read_vectors, recognise
from actors.cargo.vectors import SteeringVectors, VectorError
from alignment.maps import Affine
from tests.vector_files import LAYERS, WIDTH, drawn, refusal, same, sites

FORMAT_NAMES = st.sampled_from(sorted(FORMATS))
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = st.lists(NUMBERS, min_size=1, max_size=9).map(lambda row: np.array(row, np.float32))
BY_LAYER = st.dictionaries(st.integers(1, LAYERS - 1), VECTORS, min_size=1, max_size=6)
WORDS = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@pytest.fixture
def vectors() -> dict[int, np.ndarray]:
    return drawn()


# --- laws


@given(name=FORMAT_NAMES, by_layer=BY_LAYER, model=WORDS, concept=WORDS)
def test_what_is_written_is_read_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    by_layer: dict[int, np.ndarray],
    model: str | None,
    concept: str | None,
) -> None:
    path = tmp_path_factory.mktemp("law") / f"vectors.{FORMATS[name].suffix}"
    written = SteeringVectors(sites(by_layer), model, "ab" * 32, concept)
    FORMATS[name].write(written, path)
    assert recognise(path) == name
    found = read_vectors(path, LAYERS)
    assert same(found.vectors, written.vectors)
    layers = [int(site.partition(".")[2]) for site in found.vectors]
    assert layers == sorted(layers)
    assert (found.model or None, found.fingerprint, found.concept) == (model, "ab" * 32, concept)


@given(name=FORMAT_NAMES, by_layer=BY_LAYER, data=st.data())
def test_one_site_of_several_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    by_layer: dict[int, np.ndarray],
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("law") / "vectors"
    FORMATS[name].write(SteeringVectors(sites(by_layer)), path)
    layer = data.draw(st.sampled_from(sorted(by_layer)))
    found = read_vectors(path, LAYERS, f"residual.{layer}")
    assert same(found.vectors, sites({layer: by_layer[layer]}))
    assert refusal(path, site="residual.0").startswith("no vector at residual.0; there are: ")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_file_that_is_cut_off_is_refused(
    name: str, vectors: dict[int, np.ndarray], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    FORMATS[name].write(SteeringVectors(sites(vectors)), whole)
    content = whole.read_bytes()
    for length in range(0, len(content) - 32, 7):  # the last bytes of a GGUF are padding
        cut.write_bytes(content[:length])
        assert refusal(cut)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_numbers_that_are_not_finite_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    for bad in (np.nan, np.inf, -np.inf):
        good = np.array([1.25, 77.0], np.float32)
        FORMATS[name].write(SteeringVectors({"residual.3": good}), path)
        found = path.read_bytes()
        assert found.count(good.tobytes()) == 1
        path.write_bytes(found.replace(good.tobytes(), np.array([1.25, bad], "f4").tobytes()))
        assert refusal(path) == "residual.3: the vector has NaN or Inf in it"


@pytest.mark.parametrize("name", ["gguf", "safetensors"])
def test_formats_of_others_have_layers_only(name: str, tmp_path: Path) -> None:
    vectors = SteeringVectors({"mlp.3": np.ones(WIDTH, np.float32)})
    with pytest.raises(VectorError, match=r"and no mlp\.3; use isthmus"):
        FORMATS[name].write(vectors, tmp_path / "vectors")


# --- our own


def test_our_own_format_keeps_every_kind_of_site_and_the_unit_of_strength(tmp_path: Path) -> None:
    row, path = np.arange(4, dtype=np.float32), tmp_path / "vectors"
    written = SteeringVectors(
        {"keys.1": row, "mlp.1": row + 1, "residual.1": row + 2},
        spreads={"keys.1": 0.1, "mlp.1": 2.5, "residual.1": 1e-30},
    )
    FORMATS["isthmus"].write(written, path)
    found = read_vectors(path, LAYERS)
    assert same(found.vectors, written.vectors)
    assert found.spreads == written.spreads
    assert read_vectors(path, LAYERS, "mlp.1").spreads == {"mlp.1": 2.5}


def test_a_map_is_not_taken_for_vectors(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    path.write_bytes(Affine(torch.ones(2, 2), torch.ones(2)).to_bytes())
    assert refusal(path).startswith("no steering vectors of format 1: kind: ")
    save_file({"residual.1": np.ones(2, np.float32)}, path, {"isthmus": "{"})
    assert refusal(path).startswith("no steering vectors of format 1: its record: Invalid JSON")


# --- plain safetensors


@pytest.mark.parametrize(
    ("key", "site"),
    [
        ("layer.3", "residual.3"),
        ("layers.3", "residual.3"),
        ("layer_3", "residual.3"),
        ("layer_activations.3", "residual.3"),
        ("direction.3", "residual.3"),
        ("residual.3", "residual.3"),
        ("blocks.3.hook_resid_post", "residual.3"),
        ("3", "residual.3"),
        ("-1", "residual.11"),
        ("layer.-12", "residual.0"),
    ],
)
def test_keys_that_name_a_layer(key: str, site: str, tmp_path: Path) -> None:
    save_file({key: np.ones((1, WIDTH), np.float32)}, tmp_path / "v")
    assert list(read_vectors(tmp_path / "v", LAYERS).vectors) == [site]


def test_a_vector_alone_belongs_where_its_file_or_its_user_says(tmp_path: Path) -> None:
    path, row = tmp_path / "v", np.ones(WIDTH, np.float32)
    save_file({"vector": row}, path)
    assert refusal(path) == "key vector does not say of which layer; say it: --site residual.N"
    assert refusal(path, site="somewhere").startswith("site 'somewhere': write KIND.LAYER")
    assert list(read_vectors(path, LAYERS, "attention.4").vectors) == ["attention.4"]
    save_file({"vector": row}, path, {"layer": "-2"})
    assert list(read_vectors(path, LAYERS).vectors) == ["residual.10"]
    save_file({"vector": row}, path, {"site": "mlp.4"})
    assert list(read_vectors(path, LAYERS).vectors) == ["mlp.4"]
    assert refusal(path, site="mlp.5") == "no vector at mlp.5; there are: mlp.4"


def test_any_precision_is_read_and_what_is_too_large_is_refused(tmp_path: Path) -> None:
    path, row = tmp_path / "v", torch.tensor([0.5, -3.0, 2.0])
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        save_tensors({"layer.1": row.to(dtype)}, path)
        found = read_vectors(path, LAYERS).vectors["residual.1"]
        assert found.dtype == np.float32
        assert found.tolist() == row.tolist()
    save_tensors({"layer.1": torch.tensor([1e300], dtype=torch.float64)}, path)
    assert refusal(path) == "residual.1: the vector has NaN or Inf in it"
    save_tensors({"layer.1": torch.tensor([1])}, path)
    assert refusal(path) == "layer.1 is of torch.int64, which has no floating point"


def test_safetensors_that_are_no_steering_vectors(tmp_path: Path) -> None:
    path, row = tmp_path / "v", np.ones(WIDTH, np.float32)
    save_file({"model.embed_tokens.weight": row}, path)
    assert refusal(path).startswith("key 'model.embed_tokens.weight' names no layer; known: ")
    save_file({"vector": row, "layer.1": row}, path)
    assert refusal(path).startswith("key 'vector' names no layer; known: ")
    save_file({"layer.12": row}, path)
    assert refusal(path) == "layer 12: the model has layers 0 to 11 (-1 is the last)"
    save_file({"layer.-13": row}, path)
    assert refusal(path) == "layer -13: the model has layers 0 to 11 (-1 is the last)"
    save_file({"layer.-1": row, "layer.11": row}, path)
    assert refusal(path) == "residual.11 is there twice"
    save_file({"layer.1": np.ones((2, WIDTH), np.float32)}, path)
    assert refusal(path) == "layer.1: the vector must be flat, its shape is (2, 5)"
    save_file({"layer.1": row}, path, {"layer_type": "self_attn"})
    assert refusal(path) == "layer_type self_attn: only vectors of a decoder_block can be read"
    save_file({}, path)
    assert refusal(path) == "there is no vector in it"


def test_a_header_whose_length_begins_as_a_pickle_does_is_read(tmp_path: Path) -> None:
    path = tmp_path / "v"
    row = np.ones(WIDTH, np.float32)
    header = json.dumps({"layer.1": {"dtype": "F32", "shape": [WIDTH], "data_offsets": [0, 20]}})
    path.write_bytes(struct.pack("<Q", 0x280) + header.ljust(0x280).encode() + row.tobytes())
    assert path.read_bytes().startswith(b"\x80\x02")
    assert same(read_vectors(path, LAYERS).vectors, {"residual.1": row})


def test_the_steering_vectors_library_takes_what_we_write_and_steers_the_same_place(
    vectors: dict[int, np.ndarray], tmp_path: Path
) -> None:
    theirs, path = import_module("steering_vectors"), tmp_path / "v"
    FORMATS["safetensors"].write(SteeringVectors(sites(vectors)), path)
    taken = theirs.SteeringVector(
        {
            int(key.partition(".")[2]): torch.from_numpy(vector)
            for key, vector in load_file(path).items()
        }
    )
    # Blocks that leave everything as it is: what comes out is the sum of what was added.
    model = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(LAYERS)])
    seen: dict[int, torch.Tensor] = {}
    for number, block in enumerate(model):
        block.register_forward_pre_hook(lambda _, args, n=number: seen.update({n: args[0].clone()}))
    with taken.apply(model, layer_config={taken.layer_type: "{num}"}):
        model(torch.zeros(1, 2, WIDTH))
    # seen[N] is what block N was given: that which block N - 1 left.
    added = {n - 1: seen[n][0, 0].numpy() for n in (3, 8)}
    np.testing.assert_array_equal(added[2], vectors[2])
    np.testing.assert_allclose(added[7], vectors[2] + vectors[7], rtol=1e-6)
    assert not seen[2].any()

    written = {f"layer.{n}": act for n, act in taken.layer_activations.items()}
    save_tensors(written, tmp_path / "back")
    assert same(read_vectors(tmp_path / "back", LAYERS).vectors, sites(vectors))


# --- pickles


def test_pickles_are_refused_in_one_line_that_says_what_to_do(
    vectors: dict[int, np.ndarray], tmp_path: Path
) -> None:
    theirs = import_module("steering_vectors")
    activations = {n: torch.from_numpy(row) for n, row in vectors.items()}
    for name, content in (
        ("vector.pt", theirs.SteeringVector(activations)),
        ("tensors.pt", activations),
    ):
        for zipped in (True, False):
            torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
            told = refusal(tmp_path / name)
            assert told.startswith("a pickle (torch.save), which can run any code when it is read;")
            assert "safetensors.torch.save_file" in told


def test_what_is_no_such_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("0.1 0.2 0.3")
    np.savez(tmp_path / "numbers.npz", vector=np.ones(WIDTH))
    for name in ("text", "numbers.npz"):
        known = "gguf, isthmus, safetensors"
        assert refusal(tmp_path / name) == f"not a file of steering vectors; formats: {known}"
    assert refusal(tmp_path / "none") == "cannot be read: No such file or directory"
    assert refusal(tmp_path) == "cannot be read: Is a directory"
