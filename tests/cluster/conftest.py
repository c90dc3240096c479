from collections.abc import Generator

import pytest

from cluster.placement import ClusterFacts
from cluster.session import session


@pytest.fixture(scope="session")
def local_ray() -> Generator[ClusterFacts]:
    """One small local Ray for every test of the room that needs one."""
    with session("local", num_cpus=3, object_store_mib=80) as facts:
        yield facts
