"""What a run that starts says of an S3 store that cannot serve it, against a real server."""

import re
import time

import pytest

from cluster.s3 import LARGE_BYTES, S3Store
from cluster.storage import StorageError, address
from tests.object_proxy import Between
from tests.object_server import Ceph, Gateway, Reach, free_port

WHERE = address("x")
LARGE = b"x" * LARGE_BYTES


def line_of(store: S3Store) -> str:
    with pytest.raises(StorageError) as caught, store.proven():
        pass
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{store}: ")
    return line.removeprefix(f"{store}: ")


def test_what_is_wrong_with_the_credentials_is_said(
    store: S3Store, ceph: Ceph, gateway: Gateway, reach: Reach
) -> None:
    reach(gateway, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    assert line_of(store) == (
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run "
        "on machines with a role"
    )
    reach(gateway, AWS_SECRET_ACCESS_KEY=None)
    assert "AWS_SECRET_ACCESS_KEY" in line_of(store)
    reach(gateway, AWS_PROFILE="nobody")
    assert "nobody" in line_of(store)
    reach(gateway, AWS_PROFILE=None, AWS_SECRET_ACCESS_KEY="wrong")
    refused = f"{gateway.url} does not accept the credentials ({{}}): check key and secret"
    assert line_of(store) == refused.format("SignatureDoesNotMatch")
    with pytest.raises(StorageError, match="SignatureDoesNotMatch"):
        store.has(WHERE)
    reach(gateway, AWS_ACCESS_KEY_ID="nobody")
    assert line_of(store) == refused.format("InvalidAccessKeyId")
    ceph.new_user("stranger", "stranger", "stranger")
    reach(gateway, AWS_ACCESS_KEY_ID="stranger", AWS_SECRET_ACCESS_KEY="stranger")
    assert line_of(store) == (
        "no permission for ListObjectsV2: the store needs to get, put, delete and list objects, "
        "and to list and abort uploads"
    )


def test_a_bucket_that_is_not_there_is_said(gateway: Gateway, reach: Reach) -> None:
    reach(gateway)
    nowhere = S3Store("isthmus-nowhere", "prefix")
    line = f"there is no bucket isthmus-nowhere at {gateway.url}: make it, or name another"
    assert line_of(nowhere) == line
    for ask in (lambda: nowhere.has(WHERE), lambda: nowhere.put(WHERE, LARGE)):
        with pytest.raises(StorageError, match=re.escape(line)):
            ask()


def test_a_bucket_of_another_region_is_said(store: S3Store, proxy: Between) -> None:
    proxy(lambda *_: "400 IllegalLocationConstraintException")
    assert line_of(store) == (
        "the bucket is in another region (IllegalLocationConstraintException: "
        "IllegalLocationConstraintException by the test): set AWS_DEFAULT_REGION"
    )


def test_a_server_that_is_not_there_is_said_soon(
    store: S3Store, gateway: Gateway, reach: Reach
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    reach(gateway, AWS_ENDPOINT_URL_S3=url)
    start = time.monotonic()
    line = line_of(store)
    assert time.monotonic() - start < 10
    assert line.startswith(f"no answer from {url}: Could not connect")
    assert line.endswith("; check AWS_ENDPOINT_URL_S3")


def test_an_endpoint_that_is_no_url_is_said(store: S3Store, gateway: Gateway, reach: Reach) -> None:
    reach(gateway, AWS_ENDPOINT_URL_S3="localhost")
    line = (
        "AWS_ENDPOINT_URL_S3 or a setting like it: Invalid endpoint: localhost; allowed: "
        "http(s)://host:port"
    )
    with pytest.raises(StorageError, match=re.escape(line)), store.proven():
        pass


def test_a_server_that_ignores_conditions_is_refused(store: S3Store, proxy: Between) -> None:
    between = proxy(lambda method, path, number: "agree" if method == "PUT" else None)
    assert line_of(store) == (
        f"{between.url} ignores If-None-Match, so two writers could tear a blob; allowed: AWS S3, "
        "Ceph RGW, or another server that honours it"
    )
