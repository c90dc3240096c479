from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.s3 import S3Store
from cluster.storage import open_store
from tests.object_proxy import Between, Proxy
from tests.object_server import Gateway, Reach


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reach]:
    """Make this process find a gateway; keywords change its environment, None takes away."""
    from cluster import s3

    def settle(at: Gateway, **changes: str | None) -> None:
        for name, value in (at.environment() | changes).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        s3.client.cache_clear()

    yield settle
    s3.client.cache_clear()


@pytest.fixture(scope="session")
def bucket(gateway: Gateway) -> str:
    """A bucket that tests share, each with a prefix of its own."""
    return gateway.bucket()


@pytest.fixture
def in_bucket(gateway: Gateway, bucket: str, reach: Reach, tmp_path: Path) -> str:
    """An empty place in a bucket that this process can reach."""
    reach(gateway)
    return f"s3://{bucket}/{tmp_path.name}"


@pytest.fixture
def proxy(gateway: Gateway, reach: Reach) -> Iterator[Between]:
    """Put something between this process and a gateway: `proxy(rule)`, `proxy(rule, gateway)`."""
    started: list[Proxy] = []

    def between(rule: Callable[..., str | None], to: Gateway = gateway) -> Proxy:
        started.append(Proxy(to.port, rule))
        reach(to, AWS_ENDPOINT_URL_S3=started[-1].url)
        return started[-1]

    yield between
    for each in started:
        each.close()


@pytest.fixture
def store(in_bucket: str) -> S3Store:
    """An empty store in a bucket."""
    opened = open_store(in_bucket)
    assert isinstance(opened, S3Store)
    return opened
