import hashlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.s3 import S3Store, client
from cluster.storage import (
    CorruptBlob,
    DirectoryStore,
    StorageError,
    Store,
    address,
    open_store,
)
from tests.mounts import in_file_system_of

ROOT = Path(__file__).parents[2]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=50)
@given(st.dictionaries(st.text(), json_values), st.randoms())
def test_address_does_not_depend_on_the_order_of_keys(mapping, random):
    shuffled = list(mapping.items())
    random.shuffle(shuffled)
    assert address(mapping) == address(dict(shuffled))


@settings(max_examples=50)
@given(st.lists(json_values, max_size=3), st.lists(json_values, max_size=3))
def test_different_parts_have_different_addresses(one, other):
    assert (address(*one) == address(*other)) == (repr(one) == repr(other))


def test_address_is_the_digest_of_canonical_json():
    assert address("a", {"c": 1.5, "b": [1, None]}) == (
        hashlib.sha256(b'["a",{"b":[1,null],"c":1.5}]').hexdigest()
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        address(float("nan"))


# --- what holds wherever blobs are


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind in turn."""
    if request.param == "directory":
        return open_store(tmp_path / "store")
    return open_store(request.getfixturevalue("in_bucket"))


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.binary(max_size=1000))
def test_what_is_put_is_got(store, data):
    where = address(uuid.uuid4().hex)
    assert not store.has(where)
    with pytest.raises(FileNotFoundError):
        store.get(where)
    store.put(where, data)
    store.put(where, data)
    assert store.has(where)
    assert pickle.loads(pickle.dumps(store)).get(where) == data  # noqa: S301 - how Ray sends it


def test_an_address_already_there_is_left_as_it_is(store):
    where = address("x")
    store.put(where, b"first")
    store.put(where, b"second")
    assert store.get(where) == b"first"


def test_the_addresses_that_are_there_are_found_among_many(store):
    there = {address(i) for i in range(40)}
    for each in there:
        store.put(each, b"")
    assert store.present(address(i) for i in range(20, 3000)) == {address(i) for i in range(20, 40)}
    assert store.present([address(0), address(0), address(50)]) == {address(0)}
    assert store.present([]) == set()


def test_a_proven_store_shows_its_marker_while_it_is_open(store, tmp_path):
    with store.proven() as token:
        assert pickle.loads(pickle.dumps(store)).has(token)  # noqa: S301
        assert not DirectoryStore(tmp_path / "another").has(token)
        with store.proven() as other:
            assert other != token
    assert not store.has(token)


def content(store: Store, where: str, new: bytes | None = None) -> bytes:
    """What is at the place of a blob, behind the store's back; `new` replaces it."""
    if isinstance(store, DirectoryStore):
        path = store.path(where)
        if new is not None:
            path.write_bytes(new)
        return path.read_bytes()
    assert isinstance(store, S3Store)
    place = {"Bucket": store.bucket, "Key": f"{store.prefix}/blobs/{where[:2]}/{where}"}
    if new is not None:
        client().put_object(Body=new, **place)
    return client().get_object(**place)["Body"].read()


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "extend"])
def test_damage_is_named_with_its_cure(store, damage):
    where = address("x")
    store.put(where, b"some data")
    whole = content(store, where)
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    content(
        store,
        where,
        {"flip": flipped, "truncate": whole[:-3], "empty": b"", "extend": whole + b"x"}[damage],
    )
    assert store.has(where)
    with pytest.raises(CorruptBlob) as caught:
        store.get(where)
    kind = "file" if isinstance(store, DirectoryStore) else "object"
    assert str(caught.value) == (
        f"{store}/blobs/{where[:2]}/{where} is damaged: delete this {kind} and run again"
    )
    if isinstance(store, DirectoryStore):
        store.path(where).unlink()
    else:
        client().delete_object(Bucket=store.bucket, Key=f"{store.prefix}/blobs/{where[:2]}/{where}")
    store.put(where, b"some data")
    assert store.get(where) == b"some data"
    assert content(store, where) == whole


def _put_and_read(location: str, rounds: int) -> None:
    store = open_store(location)
    for i in range(rounds):
        where, data = address(i), str(i).encode() * 20_000
        store.put(where, data)
        assert store.get(where) == data


def test_several_processes_may_write_the_same_addresses(store):
    fork = multiprocessing.get_context("fork")
    assert not store.has(address("so that this process has connections to share"))
    writers = [fork.Process(target=_put_and_read, args=(str(store), 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert store.present(address(i) for i in range(100)) == {address(i) for i in range(25)}


ENDLESS_WRITER = """
import os, sys
from cluster.storage import address, open_store
store, data = open_store(sys.argv[1]), os.urandom(8_000_000)
store.has(address("ready"))
print("writing", flush=True)
for i in range(10**9):
    store.put(address(i), data)
"""


def test_a_kill_during_put_leaves_nothing_half_written(store):
    for attempt in range(4):
        location = f"{store}/{attempt}"
        writer = subprocess.Popen(
            [sys.executable, "-c", ENDLESS_WRITER, location], stdout=subprocess.PIPE, cwd=ROOT
        )
        with writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.03 + 0.04 * attempt)
            os.kill(writer.pid, signal.SIGKILL)
        # A server may still finish what it has been sent in full.
        left = open_store(location)
        there = left.present(address(i) for i in range(200))
        assert there >= {address(i) for i in range(len(there) - 1)}
        assert all(len(left.get(where)) == 8_000_000 for where in there)


# --- directories


def test_a_blob_is_a_file_and_nothing_else_is_left(tmp_path):
    store, where = DirectoryStore(tmp_path), address("x")
    store.put(where, b"data")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [store.path(where)]
    assert store.path(where) == tmp_path / "blobs" / where[:2] / where


def test_a_directory_that_cannot_be_one_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    store = DirectoryStore(tmp_path / "file")
    with pytest.raises(StorageError, match=r"/file/blobs/.* cannot be written: Not a directory$"):
        store.put(address("x"), b"")
    with pytest.raises(StorageError, match=r"cannot be read: Not a directory$"):
        store.get(address("x"))


IN_A_SMALL_FILE_SYSTEM = """
import subprocess, sys
from pathlib import Path
from cluster.storage import StorageError, address, open_store
store, root = open_store(Path(sys.argv[1]) / "store"), Path(sys.argv[1])
store.put(address("small"), b"x" * 100_000)
for work in (lambda: store.put(address("large"), b"x" * 3_000_000), None):
    if work is None:
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        work = lambda: store.proven().__enter__()
    try:
        work()
    except StorageError as error:
        print(error)
    print(sorted(path.name for path in root.rglob("*") if path.is_file()))
    print(store.get(address("small")) == b"x" * 100_000)
"""


def test_a_full_and_a_read_only_file_system_are_named_and_nothing_half_written_stays(tmp_path):
    script = (sys.executable, "-c", IN_A_SMALL_FILE_SYSTEM, str(tmp_path))
    ran = subprocess.run(
        in_file_system_of(2**20, tmp_path, 'exec "$@"', *script),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    full, after, whole, read_only, after_that, still_whole = ran.stdout.splitlines()
    assert full == (
        f"the file system {tmp_path} is full, and the store {tmp_path}/store is on it: free some "
        "space there and run again; what is stored is kept"
    )
    assert read_only.startswith(f"{tmp_path}/store/blobs/")
    assert read_only.endswith(" cannot be written: Read-only file system")
    assert after == after_that == str([address("small")])
    assert whole == still_whole == "True"


# --- locations


def test_a_location_is_a_directory_or_a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store(tmp_path) == DirectoryStore(tmp_path)
    assert open_store("blobs") == DirectoryStore(tmp_path / "blobs")
    assert open_store("~/blobs") == DirectoryStore(Path.home() / "blobs")
    assert open_store("s3://some-bucket") == S3Store("some-bucket", "")
    assert open_store("s3://some-bucket/") == S3Store("some-bucket", "")
    assert open_store("s3://some-bucket/a/b=1/") == S3Store("some-bucket", "a/b=1")
    assert str(open_store("s3://some-bucket/a/b/")) == "s3://some-bucket/a/b"
    assert str(open_store("s3://some-bucket")) == "s3://some-bucket"
    assert not list(tmp_path.iterdir())


ALLOWED = "allowed: a directory, or s3://bucket/prefix"


@pytest.mark.parametrize(
    ("location", "line"),
    [
        ("", ALLOWED),
        (" ", ALLOWED),
        ("s3:/x", f"no such kind of store; {ALLOWED}"),
        (Path("s3://bucket/prefix"), f"no such kind of store; {ALLOWED}"),
        ("s3:bucket", f"no such kind of store; {ALLOWED}"),
        ("gs://bucket/prefix", f"no such kind of store; {ALLOWED}"),
        ("file:///blobs", f"no such kind of store; {ALLOWED}"),
        ("s3://", "'' is no name of a bucket"),
        ("s3:///prefix", "'' is no name of a bucket"),
        ("s3://Bucket/prefix", "'Bucket' is no name of a bucket"),
        ("s3://b/prefix", "'b' is no name of a bucket"),
        ("s3://bucket//prefix", "'/prefix' is no prefix of a store"),
        ("s3://bucket/a/../b", "'a/../b' is no prefix of a store"),
        ("s3://bucket/a?b", "'a?b' is no prefix of a store"),
    ],
)
def test_any_other_location_is_refused_in_one_line(location, line):
    with pytest.raises(StorageError) as caught:
        open_store(location)
    assert str(caught.value).startswith(f"{str(location)!r}: {line}")
    assert "\n" not in str(caught.value)
