"""The compose file: services are hardened, nothing is open to the world, and what it names exists."""

from __future__ import annotations

import re
from typing import Any

import pytest

from routellm.ledger.settings import LEDGER_URL
from routellm.openai_server import build_parser
from tests.deploy.tools import DEPLOY, dockerfile, load

COMPOSE = load("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KEYS = set(
    """build cap_drop command depends_on env_file environment healthcheck image logging mem_limit networks pids_limit ports
    read_only restart security_opt shm_size stop_grace_period tmpfs user volumes""".split()
)
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


@each_service
def test_keys_are_those_of_the_compose_specification(service: dict[str, Any]) -> None:
    assert set(service) <= KEYS


@each_service
def test_a_service_can_do_little_beyond_its_task(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert "privileged" not in service


@each_service
def test_ports_are_open_to_this_machine_only(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@each_service
def test_images_are_pinned_and_can_be_replaced(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"routellm:local|\$\{[A-Z]+_IMAGE:-[a-z/]+:v?\d[\w.-]*\}", service["image"])


@each_service
def test_volumes_and_networks_are_declared_and_files_are_there(service: dict[str, Any]) -> None:
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert (DEPLOY / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
        assert volume.endswith(":ro") == source.startswith("./")
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_no_password_has_a_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    used = re.findall(r"\$\{(\w*PASSWORD)(:\?[^}]+)?\}", text)
    assert {name for name, _ in used} == {"POSTGRES_PASSWORD", "GRAFANA_PASSWORD"}
    assert all(demand for _, demand in used)
    example = (DEPLOY / "stack.env.example").read_text(encoding="utf-8")
    assert {line for line in example.splitlines() if not line.startswith("#")} == {f"{name}=" for name, _ in used}


def test_only_the_server_and_prometheus_reach_what_they_need() -> None:
    assert {name for name, service in SERVICES.items() if "data" in service["networks"]} == {"routellm", "postgres"}
    assert COMPOSE["networks"]["data"] == COMPOSE["networks"]["monitoring"] == {"internal": True}


def test_the_servers_arguments_and_environment_are_known() -> None:
    server = SERVICES["routellm"]
    arguments = build_parser().parse_args(server["command"])
    assert arguments.workers == 2
    assert list(server["environment"]) == [LEDGER_URL]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]) == DEPLOY / ".." / "deploy/Dockerfile"


def test_open_streams_may_end_before_the_container_is_killed() -> None:
    from routellm.serving.process import _GRACE_SECONDS

    assert int(SERVICES["routellm"]["stop_grace_period"].removesuffix("s")) > _GRACE_SECONDS


def test_prometheus_looks_for_the_server_where_it_is() -> None:
    (job,) = load("prometheus.yml")["scrape_configs"]
    (where,) = job["dns_sd_configs"]
    exposed = dict(dockerfile())["EXPOSE"]
    assert (job["job_name"], where["names"], str(where["port"])) == ("routellm", ["routellm"], exposed)
    mounted = {volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in ("prometheus.yml", *load("prometheus.yml")["rule_files"])} <= mounted


def test_grafana_finds_its_data_source_and_its_dashboards() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = load("grafana/provisioning/dashboards/routellm.yaml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
