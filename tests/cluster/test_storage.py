import hashlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.storage import CorruptBlob, Store, address

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), json_values), st.randoms())
def test_address_does_not_depend_on_the_order_of_keys(mapping, random):
    shuffled = list(mapping.items())
    random.shuffle(shuffled)
    assert address(mapping) == address(dict(shuffled))


@settings(max_examples=50, deadline=None)
@given(st.lists(json_values, max_size=3), st.lists(json_values, max_size=3))
def test_different_parts_have_different_addresses(one, other):
    assert (address(*one) == address(*other)) == (repr(one) == repr(other))


def test_address_is_the_digest_of_canonical_json():
    assert address("a", {"c": 1.5, "b": [1, None]}) == (
        hashlib.sha256(b'["a",{"b":[1,null],"c":1.5}]').hexdigest()
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        address(float("nan"))


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=1000))
def test_what_is_put_is_got(tmp_path_factory, data):
    store = Store(tmp_path_factory.mktemp("store"))
    where = address("x")
    assert not store.has(where)
    with pytest.raises(FileNotFoundError):
        store.get(where)
    store.put(where, data)
    store.put(where, data)
    assert store.has(where)
    assert pickle.loads(pickle.dumps(store)).get(where) == data  # noqa: S301 - how Ray sends it
    assert store.path(where) == store.root / "blobs" / where[:2] / where
    assert not list((store.root / "aside").iterdir())


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "extend"])
def test_damage_is_named_with_its_cure(tmp_path, damage):
    store, where = Store(tmp_path), address("x")
    store.put(where, b"some data")
    path = store.path(where)
    content = path.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes(
        {"flip": flipped, "truncate": content[:-3], "empty": b"", "extend": content + b"x"}[damage]
    )
    with pytest.raises(CorruptBlob) as caught:
        store.get(where)
    assert str(caught.value) == f"{path} is damaged: delete this file and run again"
    path.unlink()
    store.put(where, b"some data")
    assert store.get(where) == b"some data"


def _put_and_read(root: Path, rounds: int) -> None:
    store = Store(root)
    for i in range(rounds):
        where, data = address(i), str(i).encode() * 20_000
        store.put(where, data)
        assert store.get(where) == data


def test_several_processes_may_write_the_same_addresses(tmp_path):
    spawn = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    writers = [spawn.Process(target=_put_and_read, args=(tmp_path, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 25
    assert not list((tmp_path / "aside").iterdir())


ENDLESS_WRITER = """
import os, sys
from pathlib import Path
from cluster.storage import Store, address
store, data = Store(Path(sys.argv[1])), os.urandom(8_000_000)
print("writing", flush=True)
for i in range(10**9):
    store.put(address(i), data)
"""


def test_a_kill_during_put_leaves_nothing_half_written(tmp_path):
    for attempt in range(5):
        root = tmp_path / str(attempt)
        writer = subprocess.Popen(
            [sys.executable, "-c", ENDLESS_WRITER, str(root)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        with writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.03 + 0.02 * attempt)
            os.kill(writer.pid, signal.SIGKILL)
        store, i = Store(root), 0
        while store.has(address(i)):
            assert len(store.get(address(i))) == 8_000_000
            i += 1
        finished = [path for path in (root / "blobs").rglob("*") if path.is_file()]
        assert len(finished) == i
