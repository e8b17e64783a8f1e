"""The manifests of deploy/kubernetes: true to Kubernetes' own schema, to each other and to the service."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from jail import settings
from jail.cli.serve import _grace_s
from jail.http import Metrics, Table
from jail.published import Published

CHECKOUT = Path(__file__).parents[2]
PLACE = CHECKOUT / "deploy" / "kubernetes" / "base"
VERSIONS = ("1.33", "1.37")
"""The oldest that docs/kubernetes.md promises, and the newest that was looked at."""

KUSTOMIZATION = yaml.safe_load((PLACE / "kustomization.yaml").read_text())
MANIFESTS = {name: yaml.safe_load((PLACE / name).read_text()) for name in KUSTOMIZATION["resources"]}
DEPLOYMENT = MANIFESTS["deployment.yaml"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
DOCS = (CHECKOUT / "docs" / "kubernetes.md").read_text()


def validate(manifest, version):
    validator = pytest.importorskip("kubernetes_validate", reason="pip install 'jail[check]' has the schemas")
    validator.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_of_its_schema(name, version):
    validate(MANIFESTS[name], version)


def test_a_field_that_is_misspelt_is_noticed():
    wrong = DEPLOYMENT | {"spec": DEPLOYMENT["spec"] | {"hostusers": False}}
    with pytest.raises(Exception, match=r"'hostusers' was unexpected"):
        validate(wrong, VERSIONS[0])


def render(place):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl renders them, and is not installed")
    done = subprocess.run(["kubectl", "kustomize", place], stdout=subprocess.PIPE, timeout=60, check=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("place", [PLACE, PLACE.parent / "crio"], ids=lambda place: place.name)
def test_what_is_rendered_is_of_its_schema_and_whole(place):
    rendered = render(place)
    kinds = [manifest["kind"] for manifest in rendered]
    assert sorted(kinds) == sorted(["ConfigMap", *(manifest["kind"] for manifest in MANIFESTS.values())])
    for manifest in rendered:
        validate(manifest, VERSIONS[0])


def test_with_crun_root_of_the_pod_can_give_its_cgroup_away():
    (pod,) = (m["spec"]["template"] for m in render(PLACE.parent / "crio") if m["kind"] == "Deployment")
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["annotations"] == {"io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw": "true"}
    assert pod["spec"]["securityContext"]["runAsUser"] == 0
    assert pod["spec"]["hostUsers"] is False
    assert container["securityContext"]["capabilities"]["add"] == ["CHOWN", "SETGID", "SETUID"]
    # What the other says besides is still there.
    assert container["securityContext"]["procMount"] == CONTAINER["securityContext"]["procMount"]


def test_every_file_is_part_of_it():
    (config,) = KUSTOMIZATION["configMapGenerator"]
    named = {"kustomization.yaml", *KUSTOMIZATION["resources"], *config["files"]}
    assert {path.name for path in PLACE.iterdir() if path.is_file()} == named


def configured():
    """The settings of a pod that has four processors, as the service reads them."""
    variables = {entry["name"]: entry.get("value", "") for entry in CONTAINER["env"]}
    assert variables.pop("JAIL_CONFIG") == "/etc/jail/jail.toml"
    return settings.load(variables | {"HOME": "/"}, str(PLACE / "jail.toml"))


def test_a_pod_has_the_time_to_drain():
    sleep = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    served = _grace_s(configured())
    assert sleep + served < POD["terminationGracePeriodSeconds"]


def test_a_pod_has_the_memory_of_its_jobs_and_of_the_service():
    memory = CONTAINER["resources"]["limits"]["memory"]
    bytes_of_pod = int(memory.removesuffix("Gi")) << 30
    assert configured().memory_bytes <= bytes_of_pod * 3 // 4
    assert CONTAINER["resources"]["requests"]["memory"] == memory


def test_a_pod_has_the_disk_of_what_callers_store():
    (limit,) = (volume["emptyDir"]["sizeLimit"] for volume in POD["volumes"] if volume["name"] == "state")
    resources = CONTAINER["resources"]
    storages = [limit, *(resources[kind]["ephemeral-storage"] for kind in ("requests", "limits"))]
    mebibytes = [int(storage.removesuffix("Mi")) for storage in storages]
    assert configured().files_bytes >> 20 <= mebibytes[0] - 64
    assert mebibytes == sorted(mebibytes)


def test_a_pod_has_a_processor_for_each_slot():
    assert int(CONTAINER["resources"]["requests"]["cpu"]) == configured().slots


def test_the_autoscaler_looks_at_a_number_that_is_served():
    engine = SimpleNamespace(
        scheduler=SimpleNamespace(running=0, queued=7, slots_free=0, memory_free_bytes=0),
        sandboxes=SimpleNamespace(stock=SimpleNamespace(ready=0, making=()), dying=()),
        published=Published(),
    )
    served = Metrics(engine, Table(1), 0).render().decode()
    (metric,) = MANIFESTS["autoscaler.yaml"]["spec"]["metrics"]
    assert re.search(rf"^{metric['pods']['metric']['name']} 7\.0$", served, re.MULTILINE)
    assert int(metric["pods"]["target"]["averageValue"]) == configured().slots
    assert configured().queue > configured().slots


def test_everything_is_about_the_same_pods():
    spec = {name: manifest.get("spec") for name, manifest in MANIFESTS.items()}
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == LABELS
    assert spec["service.yaml"]["selector"] == LABELS
    assert spec["disruption.yaml"]["selector"]["matchLabels"] == LABELS
    assert spec["network.yaml"]["podSelector"]["matchLabels"] == LABELS
    target = spec["autoscaler.yaml"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", DEPLOYMENT["metadata"]["name"])
    assert "replicas" not in DEPLOYMENT["spec"]
    assert POD["runtimeClassName"] == MANIFESTS["runtime.yaml"]["metadata"]["name"]
    assert KUSTOMIZATION["namespace"] == MANIFESTS["namespace.yaml"]["metadata"]["name"]


def test_every_port_is_the_one_that_is_listened_on():
    (port,) = CONTAINER["ports"]
    containerfile = (CHECKOUT / "deploy" / "container" / "Containerfile").read_text()
    assert f"JAIL_ADDRESS=0.0.0.0:{port['containerPort']}" in containerfile
    named = [
        CONTAINER[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    ]
    named += [entry["targetPort"] for entry in MANIFESTS["service.yaml"]["spec"]["ports"]]
    named += [
        entry["port"] for rule in MANIFESTS["network.yaml"]["spec"]["ingress"] for entry in rule["ports"]
    ]
    assert set(named) == {port["name"]}


def test_no_variable_comes_that_jail_would_refuse():
    # A Service named jail would otherwise make JAIL_PORT=tcp://… and its like.
    with pytest.raises(settings.SettingsError, match="JAIL_SERVICE_HOST"):
        settings.load({"HOME": "/", "JAIL_SERVICE_HOST": "10.0.0.1"})
    assert POD["enableServiceLinks"] is False


def test_nothing_goes_out():
    policy = MANIFESTS["network.yaml"]["spec"]
    assert "Egress" in policy["policyTypes"]
    assert "egress" not in policy


def test_a_pod_is_not_privileged():
    context = CONTAINER["securityContext"]
    assert POD["hostUsers"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert "privileged" not in context
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["SETGID", "SETUID"]}


@pytest.mark.parametrize(
    "exception",
    [
        f"localhostProfile: {POD['securityContext']['seccompProfile']['localhostProfile']}",
        f"appArmorProfile: {POD['securityContext']['appArmorProfile']['type']}",
        f"procMount: {CONTAINER['securityContext']['procMount']}",
        f"allowPrivilegeEscalation: {str(CONTAINER['securityContext']['allowPrivilegeEscalation']).lower()}",
        f"capabilities: {', '.join(CONTAINER['securityContext']['capabilities']['add'])}",
    ],
)
def test_every_exception_has_its_line_in_the_docs(exception):
    assert f"| `{exception}` |" in DOCS
