"""The manifest for Kubernetes: what it holds is what KubeRay, Kubernetes and Ray know.

Pods and the volume are held to the schemas of Kubernetes. Of KubeRay's own objects, no package has
the schema: they are held to models of the fields that are used here and of those beside them, after
the published reference of ray.io/v1 (KubeRay 1.5, docs.ray.io, "KubeRay CRD API reference"). Ray's
own reader of a RayCluster, which its autoscaler runs in the head's pod, has the last word.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import kubernetes_validate
import pytest
import ray
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from jobs.config import read_run_file

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "kuberay.yaml"
KUBERNETES = "1.33"
CODE = "/home/ray/isthmus"

Name = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$")]
Count = Annotated[int, Field(ge=0, strict=True)]
Words = dict[str, Annotated[str, Field(strict=True)]]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class Metadata(Part):
    name: Name
    namespace: Name | None = None
    labels: Words = {}
    annotations: Words = {}


class AuthOptions(Part):
    mode: Literal["disabled", "token"] = "token"


class AutoscalerOptions(Part):
    version: Literal["v1", "v2"] | None = None
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] | None = None
    idle_timeout_seconds: Count | None = None
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None


class HeadGroup(Part):
    ray_start_params: Words
    template: dict[str, Any]
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    enable_ingress: bool | None = None


class WorkerGroup(Part):
    group_name: Name
    replicas: Count = 0
    min_replicas: Count
    max_replicas: Count
    num_of_hosts: Annotated[int, Field(ge=1)] = 1
    idle_timeout_seconds: Count | None = None
    ray_start_params: Words
    template: dict[str, Any]

    @model_validator(mode="after")
    def _in_order(self) -> "WorkerGroup":
        if not self.min_replicas <= self.replicas <= self.max_replicas:
            raise ValueError(f"{self.group_name}: replicas are out of order")
        return self


class RayClusterSpec(Part):
    ray_version: Annotated[str, Field(strict=True)]
    auth_options: AuthOptions | None = None
    enable_in_tree_autoscaling: bool = False
    autoscaler_options: AutoscalerOptions | None = None
    head_service_annotations: Words = {}
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup] = []
    suspend: bool = False


class RayCluster(Part):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJobSpec(Part):
    entrypoint: str
    cluster_selector: Words = {}
    ray_cluster_spec: RayClusterSpec | None = None
    runtime_env_yaml: str | None = Field(None, alias="runtimeEnvYAML")
    submission_mode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode"] = "K8sJobMode"
    shutdown_after_job_finishes: bool = False
    ttl_seconds_after_finished: Count = 0
    active_deadline_seconds: Count | None = None
    backoff_limit: Count = 0
    suspend: bool = False

    @model_validator(mode="after")
    def _one_cluster(self) -> "RayJobSpec":
        if bool(self.cluster_selector) == bool(self.ray_cluster_spec):
            raise ValueError("a job has a cluster of its own, or is given one")
        if self.cluster_selector and (self.shutdown_after_job_finishes or self.backoff_limit):
            raise ValueError("a job may not end or make again a cluster that it is given")
        return self


class RayJob(Part):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


def documents() -> dict[str, dict[str, Any]]:
    """By kind. Read anew each time, and without YAML's shared anchors."""
    text = MANIFEST.read_text()
    loaded = [yaml.safe_load(yaml.dump(each, Dumper=Plain)) for each in yaml.safe_load_all(text)]
    return {each["kind"]: each for each in loaded}


class Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]


def accept(found: dict[str, dict[str, Any]]) -> None:
    """Raise for whatever one of the schemas refuses."""
    kubernetes_validate.validate(found["PersistentVolumeClaim"], KUBERNETES, strict=True)
    RayCluster.model_validate(found["RayCluster"])
    RayJob.model_validate(found["RayJob"])
    for group in groups(found["RayCluster"]):
        # A template alone is no object of Kubernetes; that which holds nothing else is.
        holder = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}}
        kubernetes_validate.validate(
            holder | {"template": group["template"]}, KUBERNETES, strict=True
        )


def test_the_manifest_is_accepted() -> None:
    found = documents()
    assert list(found) == ["PersistentVolumeClaim", "RayCluster", "RayJob"]
    accept(found)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda cluster, job: cluster.update(enableAutoscaling=True), "enableAutoscaling"),
        (lambda cluster, job: cluster["autoscalerOptions"].update(version="v3"), "'v3'"),
        (lambda cluster, job: cluster["autoscalerOptions"].update(idleTimeout=60), "idleTimeout"),
        (lambda cluster, job: cluster["workerGroupSpecs"][0].update(maxReplica=3), "maxReplica"),
        (lambda cluster, job: cluster["workerGroupSpecs"][0].update(minReplicas=9), "out of order"),
        (lambda cluster, job: params(cluster, 0).update(memory=1), "memory"),
        (lambda cluster, job: container(cluster, 1).update(volumeMount=[]), "volumeMount"),
        (lambda cluster, job: container(cluster, 1)["resources"].update(limit={}), "limit"),
        (lambda cluster, job: container(cluster, 1).update(image=2), "image"),
        (lambda cluster, job: job.update(entryPoint="true"), "entryPoint"),
        (lambda cluster, job: job.update(shutdownAfterJobFinishes=True), "may not end"),
        (lambda cluster, job: job.pop("clusterSelector"), "a cluster of its own"),
    ],
)
def test_a_misspelt_key_or_value_is_refused(
    spoil: Callable[[dict[str, Any], dict[str, Any]], object], named: str
) -> None:
    found = documents()
    spoil(found["RayCluster"]["spec"], found["RayJob"]["spec"])
    refused = (ValidationError, kubernetes_validate.ValidationError)
    with pytest.raises(refused, match=named):
        accept(found)


def params(cluster: dict[str, Any], worker: int) -> dict[str, Any]:
    return cluster["workerGroupSpecs"][worker]["rayStartParams"]


def container(cluster: dict[str, Any], worker: int) -> dict[str, Any]:
    return cluster["workerGroupSpecs"][worker]["template"]["spec"]["containers"][0]


def test_ray_reads_the_node_types_that_are_meant(tmp_path: Path) -> None:
    # In a process of its own: it needs no Ray that runs, and loads much.
    read = (
        "import sys, yaml\n"
        "from pathlib import Path\n"
        "from ray.autoscaler._private.kuberay import autoscaling_config as kuberay\n"
        "whole = kuberay._derive_autoscaling_config_from_ray_cr(\n"
        "    yaml.safe_load(Path(sys.argv[1]).read_text()))\n"
        "print(yaml.safe_dump(whole))\n"
    )
    given = documents()["RayCluster"]
    given["metadata"]["namespace"] = "default"  # as Kubernetes fills in
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(given))
    command = [sys.executable, "-c", read, str(file)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    whole = yaml.safe_load(ran.stdout)
    assert whole["idle_timeout_minutes"] == 10
    kinds = whole["available_node_types"]
    head = kinds.pop("headgroup")
    assert (head["resources"]["CPU"], head["max_workers"]) == (0, 0)
    found = {name: (kind["resources"], kind["min_workers"]) for name, kind in kinds.items()}
    gib = 2**30
    assert found == {
        "cpu": ({"CPU": 16, "memory": 42 * gib}, 0),
        "gpu": ({"CPU": 3, "GPU": 1, "memory": 9 * gib}, 0),
        "gpu-8x": ({"CPU": 88, "GPU": 8, "memory": 700 * gib}, 0),
    }


def test_what_actors_may_ask_for_leaves_room_for_the_object_store() -> None:
    for group in groups(documents()["RayCluster"])[1:]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        whole = int(limits["memory"].removesuffix("Gi")) * 2**30
        assert 0.6 < int(group["rayStartParams"]["memory"]) / whole < 0.71


def test_the_job_runs_what_the_image_holds_on_the_cluster_beside_it() -> None:
    found = documents()
    job = found["RayJob"]["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": found["RayCluster"]["metadata"]["name"]}
    at, command = job["entrypoint"].split(" && ")
    assert at == f"cd {CODE}"
    *start, file = command.split()
    assert start == ["python", "-m", "jobs", "sweep"]
    read_run_file(ROOT / file)
    assert f"COPY --chown=ray:users . {CODE}" in dockerfile().splitlines()


def test_versions_agree() -> None:
    spec = documents()["RayCluster"]["spec"]
    assert spec["rayVersion"] == ray.__version__
    base = re.search(r"^FROM rayproject/ray:([\d.]+)-py(\d)(\d+)-gpu$", dockerfile(), re.M)
    assert base is not None
    assert base[1] == ray.__version__
    assert (int(base[2]), int(base[3])) == sys.version_info[:2]
    images = {
        group["template"]["spec"]["containers"][0]["image"] for group in groups({"spec": spec})
    }
    assert len(images) == 1
    assert f"docker build --tag {images.pop()} -" in dockerfile()


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_every_pod_sees_the_volume_that_is_claimed() -> None:
    found = documents()
    claim = found["PersistentVolumeClaim"]["metadata"]["name"]
    for group in groups(found["RayCluster"]):
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim
        (only,) = pod["containers"]
        (mount,) = only["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert {"name": "ISTHMUS_HOME", "value": mount["mountPath"]} in only["env"]
        assert only["resources"]["limits"] == only["resources"]["requests"]
