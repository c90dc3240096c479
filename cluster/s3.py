"""Blobs in a bucket of S3, or of anything that speaks its protocol and honours If-None-Match.

A blob is there if and only if the object at its name is, and that object is only ever created by a
conditional PUT, which one writer wins. A large blob is uploaded in parts under a name of the
writer's own, and what the conditional PUT then creates is a small commit that says which name won:
some servers do not honour the condition when an upload in parts is completed.
"""

import functools
import hashlib
import json
import os
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)

from cluster.storage import BLOB, CorruptBlob, StorageError, Store, blob_key, sealed, unsealed

COMMIT = b"isthmus large blob 1\n"
LARGE_BYTES = 32 * 2**20  # from here on in parts; below, one PUT
PART_BYTES = 8 * 2**20  # the protocol allows no less than 5 MiB, and MOST_PARTS of them
MOST_PARTS = 10_000
THREADS = 8  # parts of one blob at once, or questions of `present`
FEW = 4  # addresses that begin alike: fewer are asked for one by one, more are listed

ATTEMPTS = 9  # pauses of 0.5 s, doubling to 20 s: about a minute in all
FIRST_ATTEMPTS = 3  # of the first question of a run, when a wrong endpoint is likelier
CONNECT_SECONDS = 10
READ_SECONDS = 60

_PASSING_CODES = {
    "BadDigest",  # damaged on the way, as the next one
    "XAmzContentSHA256Mismatch",
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_KEY_CODES = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_REGION_CODES = {
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
}
_FAILED = (BotoCoreError, ClientError)

Answer = TypeVar("Answer")


@functools.cache
def client() -> Any:
    """The client of this process: endpoint, region and credentials come from boto3's own settings.

    It does not try again by itself: botocore's own retries are over within 3 s, and share a budget
    that a few threads use up.
    """
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=2 * THREADS,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": 1},
        # Checksums in trailers break servers older than they are. The signature covers the sha256
        # of what is sent instead; what is read is compared with our own.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": True},
    )
    try:
        return boto3.Session().client("s3", config=config)
    except ValueError as error:
        raise StorageError(
            f"AWS_ENDPOINT_URL_S3 or a setting like it: {_line(error)}; allowed: http(s)://host:port"
        ) from None


# Connections must not be shared across a fork.
os.register_at_fork(after_in_child=client.cache_clear)


@dataclass(frozen=True)
class S3Store(Store):
    """Blobs under a prefix of a bucket.

    Below the prefix: `blobs/ab/abcd...` are the blobs, each as in a DirectoryStore or, from
    LARGE_BYTES on, the commit of an object `large/ab/abcd....<unique>`. What no commit names is
    never read: a writer that loses takes its own away, and whoever commits an address clears what
    killed writers of it have left.
    """

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".removesuffix("/")

    def has(self, address: str) -> bool:
        """See Store."""
        with self._in_one_line():
            return self._is_there(self._key(blob_key(address)))

    def put(self, address: str, data: bytes) -> None:
        """See Store."""
        key = self._key(blob_key(address))
        with self._in_one_line():
            if len(data) < LARGE_BYTES:
                self._create(key, sealed(BLOB, data))
            elif not self._is_there(key):
                self._put_large(key, address, data)

    def get(self, address: str) -> bytes:
        """See Store."""
        key = self._key(blob_key(address))
        with self._in_one_line():
            try:
                content = self._read(key)
            except ClientError as error:
                if _code(error) == "NoSuchKey":
                    raise FileNotFoundError(f"{self._named(key)}: no such blob") from None
                raise
            large = content.startswith(COMMIT)
            data = self._read_large(content) if large else unsealed(BLOB, content)
        if data is None:
            raise CorruptBlob(f"{self._named(key)} is damaged: delete this object and run again")
        return data

    def present(self, addresses: Iterable[str]) -> set[str]:
        """See Store. Where many addresses begin alike, all that begin so are listed."""
        alike: dict[str, set[str]] = defaultdict(set)
        for address in addresses:
            alike[blob_key(address).removesuffix(address)].add(address)
        client()  # made once, before threads would each make one
        with self._in_one_line(), ThreadPoolExecutor(THREADS) as pool:
            return set().union(*pool.map(self._present, alike, alike.values()))

    @contextmanager
    def proven(self) -> Generator[str]:
        """See Store. A server that is not there, or ignores conditions, is found out here."""
        with self._in_one_line():
            self._retried("list_objects_v2", FIRST_ATTEMPTS, Prefix=self.prefix, MaxKeys=1)
        with super().proven() as token:
            with self._in_one_line():
                key = self._key(blob_key(token))
                if self._create(key, sealed(BLOB, token.encode())):
                    raise StorageError(
                        f"{self}: {_endpoint()} ignores If-None-Match, so two writers could tear a "
                        "blob; allowed: AWS S3, Ceph RGW, or another server that honours it"
                    )
            yield token

    def drop(self, address: str) -> None:
        self._delete(self._key(blob_key(address)))

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _named(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    # --- questions

    def _is_there(self, key: str) -> bool:
        # One byte is asked for: the answer to HEAD would not say what is wrong.
        try:
            self._read(key, "bytes=0-0")
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                return False
            if _code(error) == "InvalidRange":  # it is empty; `get` will say that it is damaged
                return True
            raise
        return True

    def _present(self, start: str, addresses: set[str]) -> set[str]:
        if len(addresses) <= FEW:
            return {each for each in addresses if self._is_there(self._key(blob_key(each)))}
        keys = {self._key(blob_key(address)): address for address in addresses}
        return {keys[key] for key in self._listed(self._key(start)) if key in keys}

    def _listed(self, start: str) -> Iterator[str]:
        """Every key that starts so."""
        more: dict[str, str] = {}
        while True:
            page = self._retried("list_objects_v2", Prefix=start, **more)
            yield from (each["Key"] for each in page.get("Contents", ()))
            if not page["IsTruncated"]:
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _read(self, key: str, part: str | None = None) -> bytes:
        wanted = {} if part is None else {"Range": part}

        def read() -> bytes:
            found = client().get_object(Bucket=self.bucket, Key=key, **wanted)
            return found["Body"].read()

        return _patiently(read, ATTEMPTS)

    def _read_large(self, commit: bytes) -> bytes | None:
        told = unsealed(COMMIT, commit)
        if told is None:
            return None
        large = json.loads(told)
        key, size = self._key(large["name"]), large["bytes"]
        ranges = [f"bytes={at}-{at + PART_BYTES - 1}" for at in range(0, size, PART_BYTES)]
        try:
            with ThreadPoolExecutor(THREADS) as pool:
                data = b"".join(pool.map(self._read, [key] * len(ranges), ranges))
        except ClientError as error:
            if _code(error) in ("NoSuchKey", "InvalidRange"):
                return None
            raise
        return data if hashlib.sha256(data).hexdigest() == large["sha256"] else None

    # --- changes

    def _create(self, key: str, content: bytes) -> bool:
        """Make an object, unless there is one: then False. So it is after a lost answer, too."""
        try:
            self._retried("put_object", Key=key, Body=content, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) == "PreconditionFailed":
                return False
            raise
        return True

    def _put_large(self, key: str, address: str, data: bytes) -> None:
        start = f"large/{address[:2]}/{address}."
        name = start + uuid.uuid4().hex
        try:
            self._upload(self._key(name), key, data)
        except ClientError as error:
            # Another writer has committed, and has cleared this upload away with the rest.
            if _code(error) == "NoSuchUpload" and self._is_there(key):
                return
            raise
        told = {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        commit = sealed(COMMIT, json.dumps(told, sort_keys=True).encode())
        # Where the answer to the PUT was lost, the commit that is in the way is our own.
        if self._create(key, commit) or self._read(key) == commit:
            self._clear(self._key(start), keep=self._key(name))
        else:
            self._delete(self._key(name))

    def _upload(self, key: str, committed: str, data: bytes) -> None:
        """Upload in parts, unless there is a commit first; where it fails, nothing is left."""
        upload = {
            "Key": key,
            "UploadId": self._retried("create_multipart_upload", Key=key)["UploadId"],
        }
        size = max(PART_BYTES, -(-len(data) // MOST_PARTS))

        def send(number: int) -> dict[str, Any]:
            body = data[(number - 1) * size : number * size]
            sent = self._retried("upload_part", PartNumber=number, Body=body, **upload)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        def complete(parts: list[dict[str, Any]]) -> None:
            sent = {"MultipartUpload": {"Parts": parts}, **upload}
            try:
                client().complete_multipart_upload(Bucket=self.bucket, **sent)
            except ClientError:
                # Servers answer variously where the first answer was lost, or where the writer of
                # the commit has cleared this upload away.
                if not self._is_there(key) and not self._is_there(committed):
                    raise

        try:
            with ThreadPoolExecutor(THREADS) as pool:
                parts = list(pool.map(send, range(1, -(-len(data) // size) + 1)))
            _patiently(functools.partial(complete, parts), ATTEMPTS)
        except BaseException:
            with suppress(*_FAILED):
                self._retried("abort_multipart_upload", 1, **upload)
            raise

    def _clear(self, start: str, keep: str) -> None:
        """Take away what other writers of a committed address have left, as well as can be."""
        with suppress(*_FAILED):
            for key in self._listed(start):
                if key != keep:
                    self._delete(key)
            open_uploads = self._retried("list_multipart_uploads", 1, Prefix=start)
            for upload in open_uploads.get("Uploads", ()):
                which = {name: upload[name] for name in ("Key", "UploadId")}
                self._retried("abort_multipart_upload", 1, **which)

    def _delete(self, key: str) -> None:
        with suppress(*_FAILED):
            self._retried("delete_object", 1, Key=key)

    # --- how a server is asked, and how its refusals are told

    def _retried(self, operation: str, attempts: int | None = None, /, **what: Any) -> Any:
        def ask() -> Any:
            return getattr(client(), operation)(Bucket=self.bucket, **what)

        return _patiently(ask, attempts or ATTEMPTS)

    @contextmanager
    def _in_one_line(self) -> Generator[None]:
        try:
            yield
        except _FAILED as error:
            raise StorageError(f"{self}: {self._reason(error)}") from error

    def _reason(self, error: Exception) -> str:
        if isinstance(error, NoCredentialsError):
            return (
                "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
                "or run on machines with a role"
            )
        if isinstance(error, ClientError):
            return self._refusal(error)
        if _passes(error):
            return f"no answer from {_endpoint()}: {_line(error)}; check AWS_ENDPOINT_URL_S3"
        return _line(error)

    def _refusal(self, error: ClientError) -> str:
        code, said = _code(error), _line(error.response["Error"].get("Message") or error)
        if code == "NoSuchBucket":
            return f"there is no bucket {self.bucket} at {_endpoint()}: make it, or name another"
        if code in _KEY_CODES:
            return f"{_endpoint()} does not accept the credentials ({code}): check key and secret"
        if code == "RequestTimeTooSkewed":
            return "the clock of this machine is wrong, so nothing it signs is accepted: set it"
        if code in _REGION_CODES:
            return f"the bucket is in another region ({code}: {said}): set AWS_DEFAULT_REGION"
        if code in ("AccessDenied", "403"):
            return (
                f"no permission for {error.operation_name}: the store needs to get, put, delete "
                "and list objects, and to list and abort uploads"
            )
        if _passes(error):
            return f"{_endpoint()} is overloaded or out of order ({code}): run again later"
        return f"{error.operation_name} is refused: {code}: {said}"


def _patiently(ask: Callable[[], Answer], attempts: int) -> Answer:
    """Ask until there is an answer, with growing pauses, where what is wrong may pass."""
    for attempt in range(1, attempts):
        try:
            return ask()
        except _FAILED as error:
            if not _passes(error):
                raise
        time.sleep(random.uniform(0.5, 1) * min(0.5 * 2 ** (attempt - 1), 20))
    return ask()


def _passes(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or _code(error) in _PASSING_CODES
    return isinstance(error, (ConnectionError, HTTPClientError, IncompleteReadError))


def _code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", "unknown"))


def _line(text: object) -> str:
    return " ".join(str(text).split()).removesuffix(".")


def _endpoint() -> str:
    return client().meta.endpoint_url
