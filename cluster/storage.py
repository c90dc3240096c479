"""Content-addressed blobs: a unit of work is done if and only if its output's address exists."""

import errno
import hashlib
import json
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)

BLOB = b"isthmus blob 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_FULL = (errno.ENOSPC, errno.EDQUOT)

_SCHEME = re.compile(r"s3:|[A-Za-z][A-Za-z0-9+.-]*:/")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX_STEP = re.compile(r"(?!\.\.?$)[A-Za-z0-9_.=@+-]+")


class StorageError(ValueError):
    """The store cannot be used: the one line says which, why, and what to do."""


class CorruptBlob(StorageError):
    """A stored blob is not what was written: the one line names it, and the cure."""


def address(*parts: JsonValue) -> str:
    """The address of what `parts` describe: sha256 (64 hex digits) of their canonical JSON.

    Keys are sorted, so the order of a mapping does not matter; the order of the parts does. An int
    and a float of the same value (1 and 1.0) are different. Raises ValueError for NaN and infinity.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Store(ABC):
    """Blobs shared by the driver and its actors: several processes, or machines, at once.

    A store holds nothing but its location, so it can be sent anywhere that can reach it. Every
    method raises StorageError where it cannot.
    """

    @abstractmethod
    def has(self, address: str) -> bool:
        """Whether the work of this address is done."""

    @abstractmethod
    def put(self, address: str, data: bytes) -> None:
        """Store `data` whole or not at all. An address already there is left as it is."""

    @abstractmethod
    def get(self, address: str) -> bytes:
        """The bytes that were put. Raises CorruptBlob, or FileNotFoundError where nothing is."""

    @abstractmethod
    def drop(self, address: str) -> None:
        """Take a blob away, as well as can be: what is left is whole, or gone."""

    def present(self, addresses: Iterable[str]) -> set[str]:
        """Which of the addresses are there: `has` for many at once, in far fewer requests."""
        return {address for address in addresses if self.has(address)}

    @contextmanager
    def proven(self) -> Generator[str]:
        """Prove that blobs can be written and read here, and give the address of a fresh marker.

        While this is open, a process that does not see the marker does not see this store. Raises
        StorageError; meant for the start of a run, before hours go into its first blob.
        """
        token = address("marker", uuid.uuid4().hex)
        self.put(token, token.encode())
        try:
            if self.present([token]) != {token} or self.get(token) != token.encode():
                raise StorageError(f"{self}: what is written is not there to be read")
            yield token
        finally:
            self.drop(token)


@dataclass(frozen=True)
class DirectoryStore(Store):
    """Blobs in a directory, which every process must see under the same path.

    Below `root`: `blobs/ab/abcd...` are the finished blobs, `aside/` holds files being written;
    what a killed process left in `aside/` is never read and may be deleted while nothing runs.
    """

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def path(self, address: str) -> Path:
        """Where the blob of this address is, or would be."""
        return self.root / blob_key(address)

    def has(self, address: str) -> bool:
        """See Store."""
        path = self.path(address)
        try:
            return path.is_file()
        except OSError as error:
            raise self._refused(path, "read", error) from error

    def put(self, address: str, data: bytes) -> None:
        """See Store. The file and its name survive a power cut once this returns."""
        path = self.path(address)
        if self.has(address):
            return
        try:
            self._write(path, data)
        except OSError as error:
            raise self._refused(path, "written", error) from error

    def get(self, address: str) -> bytes:
        """See Store."""
        path = self.path(address)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._refused(path, "read", error) from error
        data = unsealed(BLOB, content)
        if data is None:
            raise CorruptBlob(f"{path} is damaged: delete this file and run again")
        return data

    def drop(self, address: str) -> None:
        with suppress(OSError):
            self.path(address).unlink()

    def _write(self, path: Path, data: bytes) -> None:
        aside = self.root / "aside" / f"{path.name}.{uuid.uuid4().hex}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("xb") as file:
                file.write(BLOB)
                file.write(hashlib.sha256(data).digest())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # Last writer wins, with the same bytes: readers see no file or a whole one.
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        sync_directory(path.parent)

    def _refused(self, path: Path, wish: str, error: OSError) -> StorageError:
        if error.errno in _FULL:
            mount = next(each for each in (path, *path.parents) if each.is_mount())
            return StorageError(
                f"the file system {mount} is full, and the store {self.root} is on it: free some "
                "space there and run again; what is stored is kept"
            )
        return StorageError(f"{path} cannot be {wish}: {error.strerror}")


def blob_key(address: str) -> str:
    """The name of a blob below the root of its store."""
    assert len(address) == 64, address
    return f"blobs/{address[:2]}/{address}"


def sealed(kind: bytes, data: bytes) -> bytes:
    """`data` behind its kind and its digest."""
    return b"".join((kind, hashlib.sha256(data).digest(), data))


def unsealed(kind: bytes, content: bytes) -> bytes | None:
    """What was sealed as this kind; None where the content is anything else."""
    start = len(kind) + _DIGEST_BYTES
    data = content[start:]
    return data if content[:start] == kind + hashlib.sha256(data).digest() else None


def split_location(location: str) -> tuple[str, str] | None:
    """Bucket and prefix of `s3://bucket/prefix` (the prefix may be empty); None for a directory.

    Raises StorageError for anything else; the line does not repeat the location.
    """
    if not location.strip() or "\0" in location:
        raise StorageError("allowed: a directory, or s3://bucket/prefix")
    if not _SCHEME.match(location):
        return None
    if not location.startswith("s3://"):
        raise StorageError("no such kind of store; allowed: a directory, or s3://bucket/prefix")
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise StorageError(
            f"{bucket!r} is no name of a bucket, which has 3 to 63 small letters, digits, dots "
            "and hyphens; allowed: s3://bucket/prefix"
        )
    prefix = prefix.removesuffix("/")
    if prefix and not all(_PREFIX_STEP.fullmatch(step) for step in prefix.split("/")):
        raise StorageError(
            f"{prefix!r} is no prefix of a store; allowed: letters, digits and _.=@+-, in steps "
            "with one / between them"
        )
    return bucket, prefix


def open_store(location: str | Path) -> Store:
    """The store at a directory or at `s3://bucket/prefix`. Nothing is made or asked yet.

    Raises StorageError where `location` is neither.
    """
    try:
        place = split_location(str(location))
    except StorageError as error:
        raise StorageError(f"{str(location)!r}: {error}") from None
    if place is None:
        return DirectoryStore(Path(location).expanduser().absolute())
    # boto3 takes half a second to import, and most runs keep their blobs in a directory.
    from cluster.s3 import S3Store

    return S3Store(*place)


def sync_directory(directory: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
