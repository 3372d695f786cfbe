"""Validates compose.yaml and deploy/kubernetes against the schemas of Kubernetes and Docker Compose."""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service import __version__
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
# From the oldest supported version to the newest known one.
VERSIONS = ("1.30", "1.33", kubernetes_validate.latest_version())
# Kinds of Kustomize, and custom resources: Kubernetes has no schemas for them.
OTHERS = ("Kustomization", "Component", "ServiceMonitor", "InferenceService")


def documents() -> list[tuple[Path, dict[str, Any]]]:
    return [
        (path.relative_to(KUBERNETES), document)
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def document(name: str) -> dict[str, Any]:
    (found,) = [text for path, text in documents() if path == Path(name)]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version: str) -> None:
    checked = 0
    for path, text in documents():
        if text["kind"] in OTHERS or path == Path("api-keys/keys.yaml"):  # a patch, not a complete Deployment
            continue
        kubernetes_validate.validate(text, version, strict=True)
        checked += 1
    assert checked == 5


@pytest.mark.parametrize("version", VERSIONS)
def test_the_predictor_of_kserve_is_a_valid_pod(version: str) -> None:
    """A predictor has the fields of a pod and some of its own."""
    predictor = document("kserve/inferenceservice.yaml")["spec"]["predictor"]
    own = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")
    spec = {name: value for name, value in predictor.items() if name not in own}
    assert spec["containers"][0]["name"] == "kserve-container"  # KServe looks for this name
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "qa"}, "spec": spec}
    kubernetes_validate.validate(pod, version, strict=True)


def test_an_unknown_field_is_detected() -> None:
    broken = copy.deepcopy(document("deployment.yaml"))
    broken["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_kustomizations_name_exactly_the_files_of_their_folders() -> None:
    for folder in [KUBERNETES, *(KUBERNETES / name for name in ("monitoring", "api-keys"))]:
        text = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        named = {*text.get("resources", ()), *(patch["path"] for patch in text.get("patches", ()))}
        assert named == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}


def test_kustomize_builds_it_with_all_components(tmp_path: Path) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    for part in ("monitoring", "api-keys"):
        shutil.copytree(KUBERNETES / part, tmp_path / part)
    shutil.copytree(KUBERNETES, tmp_path / "base")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../base"],
        "components": ["../api-keys", "../monitoring"],
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(json.dumps(overlay))
    built = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path / "mine")], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    parts = {part["kind"]: part for part in yaml.safe_load_all(built.stdout)}
    assert len(parts) == 6
    (container,) = parts["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"qa:{__version__}"
    assert {"name": "QA_API_KEYS_FILE", "value": "/run/secrets/qa-onnx/keys"} in container["env"]
    kubernetes_validate.validate(parts["Deployment"], VERSIONS[0], strict=True)
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = parts[kind]["spec"]
        selected = spec["podSelector" if kind == "NetworkPolicy" else "selector"]
        wanted = selected.get("matchLabels", selected)
        assert wanted.items() <= labels.items(), kind
    monitored = parts["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= parts["Service"]["metadata"]["labels"].items()


def test_image_versions_and_grace_periods_agree() -> None:
    (image,) = document("kustomization.yaml")["images"]
    assert image["newTag"] == __version__
    predictor = document("kserve/inferenceservice.yaml")["spec"]["predictor"]
    assert predictor["containers"][0]["image"] == f"qa:{__version__}"
    pod = document("deployment.yaml")["spec"]["template"]["spec"]
    pause = float(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + Settings().drain_seconds


def test_compose_names_files_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
    scraped = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text(encoding="utf-8"))
    (job,) = scraped["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["qa:8000"]
    assert "qa" in compose["services"]


def test_docker_compose_accepts_the_file() -> None:
    for program in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(program[0]):
            version = subprocess.run([*program, "version"], capture_output=True, check=False)
            if version.returncode == 0:
                break
    else:
        pytest.skip("Docker Compose is not installed")
    read = subprocess.run(
        [*program, "-f", "compose.yaml", "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode == 0, read.stderr
