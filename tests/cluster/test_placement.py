import pytest

from cluster.placement import GIB, ClusterFacts, Node, Request, accelerator

CORES = Node(4, 0, 8 * GIB)
CARDS = Node(2, 1, 16 * GIB, "A10G")


def test_a_cluster_is_summed_up_in_one_line():
    facts = ClusterFacts(nodes=(CORES, CARDS), address="127.0.0.1:6000")
    assert str(facts) == "2 node(s) with 6 CPU, 1 GPU, 24.0 GiB in all"


def test_every_rank_is_a_bundle_without_what_it_has_none_of():
    assert Request("a").bundles() == [{"CPU": 1}]
    asked = Request("a", 0.5, 1, 3 * GIB, ranks=3)
    assert asked.bundles() == [{"CPU": 0.5, "GPU": 1, "memory": 3 * GIB}] * 3


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request("gemma", 2), "gemma asks for 2 CPU, 0 GPU"),
        (Request("gemma", 1, 0.5, 20 * GIB), "gemma asks for 1 CPU, 0.5 GPU, 20.0 GiB"),
        (
            Request("host-x", 1, 1, 20 * GIB, ranks=4),
            "host-x asks for 4 x (1 CPU, 1 GPU, 20.0 GiB)",
        ),
    ],
)
def test_a_request_says_what_it_asks_for(request_, said):
    assert str(request_) == said


@pytest.mark.parametrize(
    ("request_", "lacking"),
    [
        (Request("whole node", 2, 1, 16 * GIB), ""),
        (Request("two ranks", 1, 0.5, 8 * GIB, ranks=2), ""),
        (Request("cores", 5), "3 CPU"),
        (Request("ranks", 1, 1, ranks=4), "2 CPU, 3 GPU"),
        (Request("memory", 1, 0, 6 * GIB, ranks=3), "1 CPU, 2.0 GiB"),
    ],
)
def test_all_ranks_fit_on_one_node_or_what_it_lacks_is_named(request_, lacking):
    assert request_.lacks(CARDS) == lacking
    assert request_.fits(CARDS) == (lacking == "")


def test_the_nearest_node_is_the_largest_in_what_is_asked_for():
    assert Request("cores", 8).nearest([CARDS, CORES]) == CORES
    assert Request("cards", 1, 8).nearest([CORES, CARDS]) == CARDS


def test_the_kind_of_gpu_is_read_from_the_resources_of_a_node():
    assert accelerator({"CPU": 1.0, "accelerator_type:H100": 1.0, "GPU": 8.0}) == "H100"
    assert accelerator({"CPU": 1.0}) is None
