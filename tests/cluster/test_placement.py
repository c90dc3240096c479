import re

import pytest

from cluster.placement import GIB, ClusterFacts, InsufficientResources, Node, Request, check

FACTS = ClusterFacts(nodes=(Node(4, 0, 8 * GIB), Node(2, 1, 16 * GIB)), address="127.0.0.1:6000")


def test_what_fits_is_let_through():
    check([], FACTS)
    check([Request("a", 4), Request("b", 2, 1, 16 * GIB)], FACTS)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([Request("gemma", 5)], "gemma asks for 5 CPU, 0 GPU on one node"),
        ([Request("gemma", 3, 1)], "gemma asks for 3 CPU, 1 GPU on one node"),
        ([Request("gemma", 1, 0, 20 * GIB)], "gemma asks for 1 CPU, 0 GPU, 20.0 GiB on one node"),
        (
            [Request("a", 4), Request("b", 3)],
            "all of a, b together asks for 7 CPU, 0 GPU; the cluster is 2 node(s)",
        ),
    ],
)  # fmt: skip
def test_what_never_fits_is_named(requests, message):
    with pytest.raises(InsufficientResources, match=re.escape(message)) as caught:
        check(requests, FACTS)
    assert "2 node(s) with 6 CPU, 1 GPU, 24.0 GiB in all" in str(caught.value)
    assert "\n" not in str(caught.value)
