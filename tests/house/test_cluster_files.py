"""The files that start clusters: against Ray's own schema, and against what this package has."""

from __future__ import annotations

import json
import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import typer.main
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

import rts_batch
from rts_batch.cli.app import app
from tests.support.places import REPOSITORY

SCHEMA = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"


@pytest.fixture
def cluster() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    return content


@pytest.fixture
def ray_job() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "docs" / "kuberay-rayjob.yaml").read_text())
    return content


def test_the_aws_cluster_is_what_ray_takes(cluster: dict[str, Any]) -> None:
    jsonschema.validate(cluster, json.loads(SCHEMA.read_text()))
    validate_config(prepare_config(cluster))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "no_such_key": 1}, json.loads(SCHEMA.read_text()))


def test_nothing_runs_on_the_head_and_nothing_is_kept_for_nothing(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert types[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    workers = {name: kind for name, kind in types.items() if name != cluster["head_node_type"]}
    assert {kind["min_workers"] for kind in workers.values()} == {0}
    market = {name: kind["node_config"].get("InstanceMarketOptions") for name, kind in workers.items()}
    assert market == {"gpu-spot": {"MarketType": "spot"}, "gpu-on-demand": None}
    assert workers["gpu-spot"]["priority"] > workers["gpu-on-demand"]["priority"]
    assert all({"IamInstanceProfile", "ImageId"} <= kind["node_config"].keys() for kind in types.values())


def test_the_nodes_have_the_ray_that_the_constraints_name(cluster: dict[str, Any], ray_job: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    images = [cluster["docker"]["head_image"], cluster["docker"]["worker_image"]]
    assert [re.match(r"rayproject/ray:([\d.]+)-py311", image)[1] for image in images] == [pinned[1]] * 2  # type: ignore[index]
    assert ray_job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_the_kuberay_job_runs_a_command_that_exists(ray_job: dict[str, Any]) -> None:
    name, command, *words = shlex.split(ray_job["spec"]["entrypoint"])
    assert name in {point.name for point in metadata.entry_points(group="console_scripts")} | {"rts-batch"}
    group: Any = typer.main.get_command(app)
    options = {option for parameter in group.commands[command].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    spec = ray_job["spec"]["rayClusterSpec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = spec["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"]) == (0, 0)
    assert workers["template"]["spec"]["terminationGracePeriodSeconds"] > 30
    head, worker = spec["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]
    images = {one["containers"][0]["image"] for one in (head, worker)}
    assert images == {f"rts-batch:{rts_batch.__version__}"}


def test_the_kuberay_job_has_the_fields_that_there_are(ray_job: dict[str, Any]) -> None:
    """Kubernetes refuses or drops a field that it does not know; these are from KubeRay's own types."""
    spec = ray_job["spec"]
    assert spec.keys() <= {
        *("entrypoint", "backoffLimit", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"),
        *("rayClusterSpec", "activeDeadlineSeconds", "metadata", "runtimeEnvYAML", "submitterPodTemplate", "suspend"),
    }
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() <= {
        *("rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs")
    }
    assert cluster["autoscalerOptions"].keys() <= {"version", "idleTimeoutSeconds", "resources", "upscalingMode"}
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    (workers,) = cluster["workerGroupSpecs"]
    assert workers.keys() == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    pods = [cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]]
    # The second autoscaler replaces pods; one that restarts by itself would come back as a node that is gone.
    assert all(pod.get("restartPolicy", "Never") == "Never" for pod in pods)


def test_rays_autoscaler_reads_the_kuberay_cluster(ray_job: dict[str, Any]) -> None:
    cluster = {"metadata": {"name": "rts-batch", "namespace": "default"}, "spec": ray_job["spec"]["rayClusterSpec"]}
    read = _derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(read)
    kinds = read["available_node_types"]
    head = kinds.pop(read["head_node_type"])
    assert head["resources"]["CPU"] == 0
    (worker,) = kinds.values()
    assert (worker["min_workers"], worker["max_workers"]) == (0, 8)
    assert (worker["resources"]["CPU"], worker["resources"]["GPU"]) == (4, 1)
    # What one worker of the run asks for fits such a node.
    words = shlex.split(ray_job["spec"]["entrypoint"])
    assert float(words[words.index("--cpus-per-worker") + 1]) <= worker["resources"]["CPU"]
    assert int(words[words.index("--max-workers") + 1]) == worker["max_workers"]
    assert read["idle_timeout_minutes"] == 1


def test_the_image_copies_what_there_is() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    copied = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert {"rts_batch", "jobs", "pyproject.toml"} <= set(copied)
    assert all((REPOSITORY / source).exists() for source in copied)
    ignore = (REPOSITORY / ".dockerignore").read_text().split()
    assert {f"!{source}" for source in copied} <= set(ignore)


def test_the_dashboard_shows_what_there_is() -> None:
    from rts_batch.actors.metrics import COUNTERS, GAUGES

    text = (REPOSITORY / "docs" / "grafana.json").read_text()
    # Ray puts its own prefix before a name, and Prometheus' suffix behind a counter's.
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
    assert set(re.findall(r"ray_rts_batch_\w+", text)) == exported
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(target["expr"] for panel in panels for target in panel["targets"])
