"""A real Prometheus takes the metrics, the configuration and the alerts, and answers every query of the dashboard."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from routellm.telemetry.metrics import Gauges, KeyCounts, Metrics
from tests.deploy.test_dashboard import queries
from tests.deploy.tools import DEPLOY, program, run
from tests.live import PATIENCE
from tests.telemetry.records import metrics, record, refused
from tests.telemetry.test_metrics import full

GAUGES = Gauges(
    in_flight=1,
    queues={"score": 1},
    breakers={("openai/big", "https://one.example/v1"): "closed", ("openai/small", "https://two.example/v1"): "open"},
    ledger_buffered=1,
    keys=KeyCounts(unauthorized=1, over_limit=1, over_budget=1, unchecked=1, lost=1),
)


def traffic(counted: Metrics) -> None:
    """Some requests of every kind that the dashboard tells apart."""
    for number in range(20):
        counted.observe(record(win_rate=number / 20), dollars=0.01, strong_dollars=0.02)
        counted.observe(record(model="openai/small"), dollars=0.001, strong_dollars=0.02)
    counted.observe(refused())
    counted.observe(record(outcome="failed", status=502, error="upstream_unreachable"))


class Scraped(BaseHTTPRequestHandler):
    """`GET /metrics` of a server that is busier each time."""

    counted = metrics()

    def do_GET(self) -> None:
        traffic(self.counted)
        self.counted.publish(GAUGES)
        content_type, body = self.counted.render(self.headers.get("accept", ""))
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that has scraped such a server a few times."""
    executable = program("prometheus", in_ci=True)
    folder = tmp_path_factory.mktemp("prometheus")
    with ThreadingHTTPServer(("127.0.0.1", 0), Scraped) as server, socket.create_server(("127.0.0.1", 0)) as free:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        target = {"job_name": "routellm", "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}]}
        scrape = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": [target]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(scrape), encoding="utf-8")
        where = [
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}",
        ]
        process = subprocess.Popen([executable, *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(f"http://{address}", "count_over_time(up[1m]) >= 4")
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(PATIENCE)
            server.shutdown()


def ask(url: str, query: str) -> list[Any]:
    """What a query finds."""
    with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=PATIENCE) as reply:
        answer = json.load(reply)
    assert answer["status"] == "success"
    found: list[Any] = answer["data"]["result"]
    return found


def wait_for(url: str, query: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if ask(url, query):
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Prometheus does not find {query}")


def test_every_query_of_the_dashboard_finds_something(prometheus: str) -> None:
    alerts = {
        rule["alert"] for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    }
    shown = [(title, query) for title, query in queries() if title not in alerts]
    assert [(title, query) for title, query in shown if not ask(prometheus, query)] == []


def test_what_is_shown_is_what_happened(prometheus: str) -> None:
    by_title = dict(queries())
    (share,) = ask(prometheus, by_title["Share of strong calls by router"])
    assert float(share["value"][1]) == pytest.approx(21 / 41, abs=0.01)
    (spent,) = ask(prometheus, by_title["Spent"])
    (saved,) = ask(prometheus, by_title["Saved against the strong model alone (estimate)"])
    assert float(saved["value"][1]) / float(spent["value"][1]) == pytest.approx((40 * 0.02 - 0.22) / 0.22, rel=0.01)
    given_up = ask(prometheus, by_title["Circuit breakers that are not closed"])
    assert {found["metric"]["endpoint"]: found["value"][1] for found in given_up} == {"https://two.example/v1": "1"}


def test_an_alert_fires_for_what_it_names_and_for_nothing_else(prometheus: str) -> None:
    firing = {title for title, query in queries() if title.startswith("Routellm") and ask(prometheus, query)}
    assert firing == {"RoutellmEndpointGivenUp"}


def test_prometheus_own_linter_takes_configuration_alerts_and_metrics() -> None:
    promtool = program("promtool", in_ci=True)
    run(promtool, "check", "config", DEPLOY / "prometheus.yml")
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", DEPLOY / "alerts.yml")
    assert run(promtool, "check", "metrics", text=full().render()[1].decode()) == ""
