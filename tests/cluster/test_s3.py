"""The store in S3, against a real server, and what may happen to it on the way."""

import multiprocessing
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import s3
from cluster.s3 import FEW, LARGE_BYTES, PART_BYTES, S3Store
from cluster.storage import CorruptBlob, StorageError, address, open_store
from tests.object_proxy import Between
from tests.object_server import Ceph, Gateway, Reach

ROOT = Path(__file__).parents[2]
WHERE = address("large")
LARGE = random.Random(0).randbytes(40_000_000)
PARTS = -(-len(LARGE) // PART_BYTES)


@pytest.fixture
def own_gateway(ceph: Ceph) -> Gateway:
    """One that may be killed."""
    return Gateway(ceph)


def keys(store: S3Store, gateway: Gateway, below: str) -> list[str]:
    listed = gateway.client().list_objects_v2(
        Bucket=store.bucket, Prefix=f"{store.prefix}/{below}/"
    )
    return [each["Key"] for each in listed.get("Contents", ())]


def uploads(store: S3Store, gateway: Gateway) -> list[str]:
    listed = gateway.client().list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix)
    return [each["Key"] for each in listed.get("Uploads", ())]


def assert_only_this_is_left(store: S3Store, gateway: Gateway) -> None:
    assert store.get(WHERE) == LARGE
    assert keys(store, gateway, "blobs") == [f"{store.prefix}/blobs/{WHERE[:2]}/{WHERE}"]
    assert len(keys(store, gateway, "large")) == 1
    assert uploads(store, gateway) == []


# --- large blobs


def test_a_large_blob_goes_in_parts_and_once(
    store: S3Store, gateway: Gateway, proxy: Between
) -> None:
    assert len(LARGE) > LARGE_BYTES
    between = proxy(lambda *_: None)
    store.put(WHERE, LARGE)
    assert sum("partNumber=" in path for _, path in between.seen) == PARTS
    assert store.has(WHERE)
    assert_only_this_is_left(store, gateway)
    there = keys(store, gateway, "large")
    store.put(WHERE, b"x" * LARGE_BYTES)
    assert keys(store, gateway, "large") == there
    assert_only_this_is_left(store, gateway)


@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "remove", "commit"])
def test_a_damaged_large_blob_is_named_and_cured(
    store: S3Store, gateway: Gateway, damage: str
) -> None:
    store.put(WHERE, LARGE)
    client, place = gateway.client(), {"Bucket": store.bucket}
    (data,), (commit,) = keys(store, gateway, "large"), keys(store, gateway, "blobs")
    if damage == "commit":
        body = client.get_object(Key=commit, **place)["Body"].read()
        client.put_object(Key=commit, Body=body[:-1] + b"?", **place)
    elif damage == "remove":
        client.delete_object(Key=data, **place)
    else:
        damaged = {
            "flip": LARGE[:-1] + bytes([LARGE[-1] ^ 1]),
            "truncate": LARGE[:PART_BYTES],
            "extend": LARGE + b"x",
        }
        client.put_object(Key=data, Body=damaged[damage], **place)
    with pytest.raises(CorruptBlob) as caught:
        store.get(WHERE)
    named = f"s3://{store.bucket}/{commit}"
    assert str(caught.value) == f"{named} is damaged: delete this object and run again"
    client.delete_object(Key=commit, **place)
    store.put(WHERE, LARGE)
    assert_only_this_is_left(store, gateway)


# --- several at once


def _write(location: str, start: float) -> None:
    store = open_store(location)
    store.has(address("a connection"))
    time.sleep(max(0.0, start - time.time()))
    store.put(WHERE, LARGE)


def _read(location: str, until: float) -> None:
    store, found = open_store(location), 0
    while time.time() < until and not found:
        try:
            assert store.get(WHERE) == LARGE
            found += 1
        except FileNotFoundError:
            time.sleep(0.02)
    assert found


def test_of_writers_of_one_address_one_wins_and_readers_see_nothing_or_all(
    store: S3Store, gateway: Gateway
) -> None:
    fork = multiprocessing.get_context("fork")
    start = time.time() + 0.5
    racers = [fork.Process(target=_write, args=(str(store), start)) for _ in range(8)]
    racers += [fork.Process(target=_read, args=(str(store), start + 90)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0] * 10
    assert_only_this_is_left(store, gateway)


def test_a_writer_that_comes_second_leaves_the_first_as_it_is(
    store: S3Store, gateway: Gateway, proxy: Between
) -> None:
    """It is held before its last step but one, or before its last, until another has committed."""
    for held in ("POST", "PUT"):
        where = address(held)

        def last(method: str, path: str, number: int, held: str = held) -> str | None:
            step = "uploadId=" in path if held == "POST" else "/blobs/" in path
            return "hold" if method == held and step else None

        between = proxy(last)
        with ThreadPoolExecutor(1) as thread:
            second = thread.submit(store.put, where, LARGE)
            assert between.held.wait(60)
            _first(store, gateway, where)
            between.release.set()
            second.result()
        assert store.get(where) == LARGE[::-1]
        assert sum(where in key for key in keys(store, gateway, "large")) == 1
        assert uploads(store, gateway) == []


WRITER = """
import sys
from cluster.storage import open_store
open_store(sys.argv[1]).put(sys.argv[2], open(sys.argv[3], "rb").read())
"""


def _first(store: S3Store, gateway: Gateway, where: str) -> None:
    """Another process puts other bytes there, not through the proxy."""
    command = [sys.executable, "-c", WRITER, str(store), where, "/dev/stdin"]
    subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | gateway.environment(),
        input=LARGE[::-1],
        check=True,
        timeout=60,
    )


# --- somebody dies


def middle(method: str, path: str, number: int) -> str | None:
    return "hold" if "partNumber=3&" in path else None


def test_a_writer_killed_in_the_middle_leaves_no_blob_and_the_next_one_clears_up(
    store: S3Store, gateway: Gateway, proxy: Between, reach: Reach, tmp_path: Path
) -> None:
    between = proxy(middle)
    (tmp_path / "data").write_bytes(LARGE)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store), WHERE, str(tmp_path / "data")], cwd=ROOT
    )
    assert between.held.wait(60)
    writer.kill()
    writer.wait()
    between.release.set()
    reach(gateway)
    assert not store.has(WHERE)
    assert store.present([WHERE]) == set()
    assert len(uploads(store, gateway)) == 1
    store.put(WHERE, LARGE)
    assert_only_this_is_left(store, gateway)


def killed_in_the_middle(store: S3Store, proxy: Between, gateway: Gateway) -> Future[None]:
    between = proxy(middle, gateway)
    with_thread = ThreadPoolExecutor(1)
    put = with_thread.submit(store.put, WHERE, LARGE)
    with_thread.shutdown(wait=False)
    assert between.held.wait(60)
    gateway.kill()
    between.release.set()
    return put


def test_a_server_killed_in_the_middle_for_good_is_said_in_one_line(
    store: S3Store,
    gateway: Gateway,
    own_gateway: Gateway,
    proxy: Between,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 3)
    put = killed_in_the_middle(store, proxy, own_gateway)
    line = rf"{re.escape(str(store))}: no answer from http://127\.0\.0\.1:\d+: [^\n]+; check [^\n]+"
    with pytest.raises(StorageError) as caught:
        put.result(60)
    assert re.fullmatch(line, str(caught.value))
    assert keys(store, gateway, "blobs") == []


def test_a_server_killed_in_the_middle_and_started_again_is_waited_for(
    store: S3Store, gateway: Gateway, own_gateway: Gateway, proxy: Between, reach: Reach
) -> None:
    put = killed_in_the_middle(store, proxy, own_gateway)
    time.sleep(2)
    assert not put.done()
    own_gateway.start()
    put.result(60)
    reach(gateway)
    assert_only_this_is_left(store, gateway)


# --- bad days


@pytest.mark.parametrize("answer", ["503 SlowDown", "500 InternalError", "409 OperationAborted"])
def test_what_passes_is_waited_for(store: S3Store, proxy: Between, answer: str) -> None:
    between = proxy(lambda method, path, number: answer if number <= 3 else None)
    start = time.monotonic()
    store.put(address("x"), b"data")
    assert len(between.seen) == 4
    assert time.monotonic() - start > 0.5 * (0.5 + 1 + 2)
    assert store.get(address("x")) == b"data"


def test_what_does_not_pass_is_said_in_one_line(
    store: S3Store, proxy: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    between = proxy(lambda *_: "503 SlowDown")
    with pytest.raises(StorageError) as caught:
        store.get(WHERE)
    assert len(between.seen) == 2
    assert str(caught.value) == (
        f"{store}: {between.url} is overloaded or out of order (SlowDown): run again later"
    )


@pytest.mark.parametrize(
    ("method", "what"), [("POST", "uploads"), ("POST", "uploadId="), ("PUT", "/blobs/")]
)
def test_an_answer_that_is_lost_changes_nothing(
    store: S3Store, gateway: Gateway, proxy: Between, method: str, what: str
) -> None:
    lost = []

    def once(asked: str, path: str, number: int) -> str | None:
        if asked == method and what in path and not lost:
            lost.append(path)
            return "lose"
        return None

    proxy(once)
    store.put(WHERE, LARGE)
    assert lost
    assert_only_this_is_left(store, gateway)


def test_data_damaged_on_the_way_is_sent_again(store: S3Store, proxy: Between) -> None:
    """The server compares it with the sha256 that is signed."""
    between = proxy(lambda method, path, number: "spoil" if number == 1 else None)
    store.put(address("x"), b"data")
    assert [method for method, _ in between.seen] == ["PUT", "PUT"]
    assert store.get(address("x")) == b"data"


# --- many addresses


def test_many_addresses_are_asked_for_in_few_requests(store: S3Store, proxy: Between) -> None:
    there = [address(i) for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: store.put(each, b""), there))
    between = proxy(lambda *_: None)
    assert store.present([*there, *(address("no", i) for i in range(20_000))]) == set(there)
    assert len(between.seen) == 256
    between.seen.clear()
    assert store.present(there[:FEW]) == set(there[:FEW])
    assert len(between.seen) == FEW


def test_a_list_longer_than_a_page_is_read_to_its_end(store: S3Store, proxy: Between) -> None:
    alike = [f"ab{i:062x}" for i in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: store.put(each, b""), alike))
    between = proxy(lambda *_: None)
    assert store.present(alike) == set(alike)
    assert len(between.seen) == 2  # servers list 1,000 at a time
