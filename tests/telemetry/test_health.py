"""When requests should be sent to a server."""

from __future__ import annotations

from routellm.telemetry.health import readiness

BOTH_WELL = {"big": ["closed"], "small": ["closed", "open"]}


def test_a_server_whose_models_can_be_reached_is_ready() -> None:
    found = readiness(BOTH_WELL)
    assert (found.ready, found.status, found.problems) == (True, "ready", ())


def test_a_server_that_stops_or_has_not_loaded_is_not_ready() -> None:
    assert readiness(BOTH_WELL, draining=True).problems == ("it is shutting down",)
    assert readiness(BOTH_WELL, loaded=False).status == "not-ready"


def test_a_model_all_of_whose_endpoints_are_given_up_is_told() -> None:
    found = readiness({"big": ["closed"], "small": ["open", "open"]})
    assert (found.ready, found.status) == (False, "not-ready")
    assert found.problems == ("no endpoint of 'small' can be reached",)


def test_an_endpoint_that_is_being_tried_again_counts_as_reached() -> None:
    assert readiness({"big": ["half-open"]}).ready


def test_a_model_that_another_stands_in_for_does_not_stop_the_server() -> None:
    found = readiness({"big": ["open"], "small": ["closed"]}, {"big": ["small"], "small": ["big"]})
    assert (found.ready, found.status) == (True, "degraded")
    assert found.problems == ("no endpoint of 'big' can be reached; 'small' stands in",)


def test_a_spare_that_can_not_be_reached_either_is_no_help() -> None:
    found = readiness({"big": ["open"], "small": ["open"]}, {"big": ["small"], "small": ["big"]})
    assert (found.ready, len(found.problems)) == (False, 2)


def test_a_model_without_any_endpoint_can_not_be_reached() -> None:
    assert not readiness({"big": []}).ready
