"""Rollouts as the command line shows them to people."""

from __future__ import annotations

from collections.abc import Iterable

from control_plane.cli.client import Json
from control_plane.cli.output import Output, when


def listing(out: Output, views: Iterable[Json]) -> None:
    """One line a rollout."""
    out.table(
        ("endpoint", "candidate", "against", "state", "step", "weight", "verdict", "started", "by"),
        (
            (
                each["endpoint"],
                each["candidate_ref"],
                each["stable_ref"],
                each["state"],
                f"{each['step']}/{len(each['steps'])}",
                percent(each["weight"]),
                each["verdict"] or "",
                when(each["created_at"]),
                each["created_by"],
            )
            for each in views
        ),
        empty="No rollouts: signalbox rollout start ENDPOINT MODEL@N",
    )


def status(out: Output, view: Json) -> None:
    """Everything there is to know of one rollout."""
    out.line(f"{view['endpoint']}: {view['stable_ref']} → {view['candidate_ref']}, {view['state']}")
    out.line(view["sentence"])
    out.line(_weights(view))
    if view["verdict"]:
        eta = f", about {duration(view['eta_s'])} to a decision" if view["eta_s"] is not None else ""
        out.line(f"verdict {view['verdict']}{eta}: {view['reason']}")
    if view["waiting_for"]:
        out.line(f"waiting for {view['waiting_for']}")
    if view["controller_age_s"] is not None:
        out.line(f"! no controller has led for {duration(view['controller_age_s'])}: nothing moves")
    out.table(("step", "weight", "copies", "bake", "requests", "approval", ""), _steps(view), empty="")
    if view["readings"]:
        columns = ("guardrail", "says", "stable", "candidate", "worse", "safe", "requests")
        out.table(columns, _readings(view), empty="")
    if view["warm_until"] is not None:
        out.line(f"kept warm until {when(view['warm_until'])}")
    out.line("can be done now: " + (", ".join(view["commands"]) or "nothing"))


def moved(view: Json) -> str:
    """What a follower is told when the rollout moves: one line."""
    verdict = f", {view['verdict']}" if view["verdict"] else ""
    at = f"step {view['step']}/{len(view['steps'])}, {percent(view['weight'])}"
    return f"{view['state'].replace('_', ' ')} ({at}{verdict}): {view['sentence']}"


def prediction(out: Output, predicted: Json) -> None:
    """What a plan is to be expected to do."""
    out.line(_traffic(predicted))
    found = predicted["prediction"]
    out.line("if the candidate is as good as stable:")
    out.table(("step", "weight", "copies", "time", "p90", "requests"), _predicted_steps(found), empty="")
    out.line(f"all steps: {_expected(found['total_median_s'])}, p90 {_expected(found['total_p90_s'])}")
    out.line("if it is worse, it is caught after:")
    out.table(("regression", "time", "p90", "its requests", "caught"), _regressions(found), empty="")
    for each in predicted["warnings"]:
        out.line(f"! {each}")


def percent(share: float | None) -> str:
    """A share in [0, 1]: `12.5 %`."""
    return "" if share is None else f"{share * 100:.3g} %"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that fits: `45 s`, `12 min`, `3.5 h`."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _weights(view: Json) -> str:
    observed = view["observed_weight"]
    seen = f" (observed {percent(observed)})" if observed is not None else ""
    after = f", next {percent(view['next_weight'])}" if view["next_weight"] is not None else ""
    copies = f", copies of {percent(view['mirror'])}" if view["mirror"] else ""
    baked = f"baked {duration(view['baked_s'])}, {duration(view['bake_left_s'])} left"
    return f"weight {percent(view['weight'])}{seen}{after}{copies}; {baked}, {view['step_requests']} requests"


def _steps(view: Json) -> Iterable[tuple[object, ...]]:
    for each in view["steps"]:
        yield (
            each["number"],
            percent(each["weight"]),
            percent(each["mirror"]) if each["mirror"] else "",
            duration(each["bake_s"]),
            each["min_requests"],
            "a person" if each["approval"] else "",
            {"current": "← now", "done": "done"}.get(each["place"], ""),
        )


def _readings(view: Json) -> Iterable[tuple[object, ...]]:
    for each in view["readings"]:
        seen = each["figure"]
        yield (
            each["title"],
            each["outcome"].replace("_", " ") + (" (observed only)" if each["observe_only"] else ""),
            figure(seen["stable"], seen["unit"]),
            figure(seen["candidate"], seen["unit"]),
            percent(each["worse"]),
            percent(each["safe"]),
            f"{each['stable_n']} / {each['candidate_n']}",
        )


def figure(value: float | None, unit: str) -> str:
    """A reading's value in a unit that people read: `12.5 %`, `6.2 ms`, `1.2 s`, `0.07 PSI`."""
    if value is None:
        return ""
    if unit == "share":
        return percent(value)
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else duration(value)
    return f"{value:.2f} {unit}"


def _traffic(predicted: Json) -> str:
    used, origin = predicted["traffic"], predicted["origin"]
    figures = (
        ("rate", f"{used['rate']:.3g} requests/s"),
        ("error_rate", f"{percent(used['error_rate'])} errors"),
        ("p50_s", f"p50 {used['p50_s'] * 1000:.3g} ms"),
        ("p95_s", f"p95 {used['p95_s'] * 1000:.3g} ms"),
    )
    return ", ".join(f"{told} ({origin[name]})" for name, told in figures)


def _predicted_steps(found: Json) -> Iterable[tuple[object, ...]]:
    for number, each in enumerate(found["steps"], start=1):
        yield (
            number,
            percent(each["weight"]),
            percent(each["mirror"]) if each["mirror"] else "",
            _expected(each["median_s"]),
            _expected(each["p90_s"]),
            each["median_requests"],
        )


def _regressions(found: Json) -> Iterable[tuple[object, ...]]:
    for each in found["regressions"]:
        yield (
            _regression(each),
            _expected(each["median_s"]),
            _expected(each["p90_s"]),
            each["median_requests"],
            percent(each["caught"]),
        )


def _regression(each: Json) -> str:
    if each["kind"] == "errors":
        return f"+{each['size'] * 100:.3g} pp errors"
    return (
        f"{percent(each['size'])} slower" if each["kind"] == "latency" else f"{each['kind']} {each['size']:g}"
    )


def _expected(seconds: float | None) -> str:
    return "not in days" if seconds is None else duration(seconds)
