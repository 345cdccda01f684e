"""Facts that must agree between the manifests and the code. No cluster is needed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "deploy/k8s"
SETTINGS = {
    "api-gateway": "interpedia_gateway.settings:GatewaySettings",
    "inference": "interpedia_inference.settings:InferenceSettings",
    "autointerp": "interpedia_autointerp.settings:AutointerpSettings",
    "ingest": "interpedia_ingest.settings:IngestSettings",
}


def _objects() -> list[dict[str, Any]]:
    base = K8S / "base"
    names = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    assert sorted(names) == sorted(p.name for p in base.glob("*.yaml") if p.name != "kustomization.yaml")
    return [found for name in names for found in yaml.safe_load_all((base / name).read_text())]


OBJECTS = _objects()


def _of(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == kind}


def _settings_class(service: str) -> Any:
    module, name = SETTINGS[service].split(":")
    return getattr(importlib.import_module(module), name)


def test_every_service_has_a_deployment_a_service_and_an_image() -> None:
    for service in SETTINGS:
        deployment = _of("Deployment")[service]
        pod = deployment["spec"]["template"]
        assert pod["metadata"]["labels"].items() >= _of("Service")[service]["spec"]["selector"].items()
        assert (K8S.parents[1] / "services" / service / "Dockerfile").is_file()


@pytest.mark.parametrize("service", SETTINGS)
def test_ports_are_those_of_the_settings(service: str) -> None:
    port = _settings_class(service).model_fields["port"].default
    container = _of("Deployment")[service]["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"][0]["containerPort"] == port
    assert _of("Service")[service]["spec"]["ports"][0]["port"] == port


def test_started_modules_exist() -> None:
    for deployment in [*_of("Deployment").values(), *_of("Job").values()]:
        arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        assert arguments[:2] == ["python", "-m"]
        assert importlib.util.find_spec(arguments[2]) is not None


def test_variables_exist_in_some_settings() -> None:
    known = {
        f"INTERPEDIA_{field}".upper()
        for service in SETTINGS
        for field in _settings_class(service).model_fields
    }
    containers = [
        yaml.safe_load((K8S / "overlays/gpu" / name).read_text())["spec"]["template"]["spec"]["containers"][0]
        for name in ("gpu-worker.yaml", "gpu-inference.yaml")
    ]
    containers += [found["spec"]["template"]["spec"]["containers"][0] for found in _of("Deployment").values()]
    named = {entry["name"] for container in containers for entry in container.get("env", [])}
    used = {*_of("ConfigMap")["interpedia"]["data"], *(n for n in named if n.startswith("INTERPEDIA_"))}
    assert used <= known


def test_probes_are_routes_of_every_service() -> None:
    for service in SETTINGS:
        container = _of("Deployment")[service]["spec"]["template"]["spec"]["containers"][0]
        paths = {container[p]["httpGet"]["path"] for p in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert paths == {"/livez", "/readyz"}


def test_pods_run_unprivileged() -> None:
    for workload in [*_of("Deployment").values(), *_of("Job").values()]:
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_keys_of_llms_are_a_secret_that_only_autointerp_sees() -> None:
    def secrets(name: str) -> set[str]:
        sources = _of("Deployment")[name]["spec"]["template"]["spec"]["containers"][0]["envFrom"]
        return {source["secretRef"]["name"] for source in sources if "secretRef" in source}

    with_keys = {name for name in _of("Deployment") if "interpedia-llm" in secrets(name)}
    assert with_keys == {"autointerp", "autointerp-worker"}


def test_services_find_one_another() -> None:
    settings = _of("ConfigMap")["interpedia"]["data"]
    urls = {name: value for name, value in settings.items() if name.endswith("_URL")}
    ports = {f"http://{name}:{found['spec']['ports'][0]['port']}" for name, found in _of("Service").items()}
    assert set(urls) == {"INTERPEDIA_INGEST_URL", "INTERPEDIA_AUTOINTERP_URL", "INTERPEDIA_GATEWAY_URL"}
    assert set(urls.values()) <= ports
