"""The alerts, held by promtool's own unit tests: when each comes, and that it does not before."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prometheus import needs_promtool

from .conftest import ChartUnderTest, Release

LABELS = 'namespace="prod",job="demo-ptft"'


def job(name: str, made: int, ended: str) -> dict[str, str]:
    """What kube-state-metrics says of a Job that was made then and ended so."""
    own = f'namespace="prod",job_name="demo-ptft-{name}"'
    return {
        f"kube_job_created{{{own}}}": f"{made}x90",
        f'kube_job_{ended}{{{own},condition="true"}}': "1x90",
        f'kube_job_{ended}{{{own},condition="false"}}': "0x90",
    }


CASES: dict[str, tuple[Mapping[str, str], str, str, bool]] = {
    # name: series by labels, the minute, the alert, whether it is there
    "a pod answers": ({f"up{{{LABELS}}}": "1x10"}, "9m", "PtftDown", False),
    "no pod answers": ({f"up{{{LABELS}}}": "1x5 0x10"}, "9m", "PtftDown", True),
    "nobody is scraped": ({}, "9m", "PtftDown", True),
    "one of two is away": (
        {f'up{{{LABELS},pod="a"}}': "0x10", f'up{{{LABELS},pod="b"}}': "1x10"},
        *("9m", "PtftDown", False),
    ),
    "no request fails": (
        {f'ptft_requests_total{{{LABELS},status="200"}}': "0+600x400"},
        *("390m", "PtftErrorBudgetBurnsFast", False),
    ),
    "2 % fail for an hour": (
        {
            f'ptft_requests_total{{{LABELS},status="200"}}': "0+588x80",
            f'ptft_requests_total{{{LABELS},status="500"}}': "0+12x80",
        },
        *("75m", "PtftErrorBudgetBurnsFast", True),
    ),
    "what clients did wrong is no failure": (
        {
            f'ptft_requests_total{{{LABELS},status="200"}}': "0+300x80",
            f'ptft_requests_total{{{LABELS},status="429"}}': "0+300x80",
        },
        *("75m", "PtftErrorBudgetBurnsFast", False),
    ),
    "it is over": (  # the hour is still bad, the last five minutes are not
        {
            f'ptft_requests_total{{{LABELS},status="200"}}': "0+588x100",
            f'ptft_requests_total{{{LABELS},status="500"}}': "0+30x60 1800x40",
        },
        *("70m", "PtftErrorBudgetBurnsFast", False),
    ),
    "0.7 % fail for six hours": (
        {
            f'ptft_requests_total{{{LABELS},status="200"}}': "0+993x400",
            f'ptft_requests_total{{{LABELS},status="503"}}': "0+7x400",
        },
        *("390m", "PtftErrorBudgetBurnsSlow", True),
    ),
    "0.7 % are too few for the fast one": (
        {
            f'ptft_requests_total{{{LABELS},status="200"}}': "0+993x400",
            f'ptft_requests_total{{{LABELS},status="503"}}': "0+7x400",
        },
        *("390m", "PtftErrorBudgetBurnsFast", False),
    ),
    "a fifth is slow": (
        {
            f'ptft_request_seconds_bucket{{{LABELS},le="2.0"}}': "0+480x80",
            f"ptft_request_seconds_count{{{LABELS}}}": "0+600x80",
        },
        *("75m", "PtftLatencyBudgetBurnsFast", True),
    ),
    "7 % are slow for six hours": (
        {
            f'ptft_request_seconds_bucket{{{LABELS},le="2.0"}}': "0+93x400",
            f"ptft_request_seconds_count{{{LABELS}}}": "0+100x400",
        },
        *("390m", "PtftLatencyBudgetBurnsSlow", True),
    ),
    "half a per cent is slow": (
        {
            f'ptft_request_seconds_bucket{{{LABELS},le="2.0"}}': "0+995x400",
            f"ptft_request_seconds_count{{{LABELS}}}": "0+1000x400",
        },
        *("390m", "PtftLatencyBudgetBurnsSlow", False),
    ),
    "the queue of one pod is nearly full": (
        {
            f'ptft_queue_items{{{LABELS},pod="a"}}': "250x20",
            f'ptft_queue_limit_items{{{LABELS},pod="a"}}': "256x20",
            f'ptft_queue_items{{{LABELS},pod="b"}}': "0x20",
            f'ptft_queue_limit_items{{{LABELS},pod="b"}}': "256x20",
        },
        *("15m", "PtftQueueNearCap", True),
    ),
    "a full queue for a minute": (
        {
            f"ptft_queue_items{{{LABELS}}}": "0x10 250x1 0x20",
            f"ptft_queue_limit_items{{{LABELS}}}": "256x40",
        },
        *("15m", "PtftQueueNearCap", False),
    ),
    "few items that are much work": (
        {
            f"ptft_work_seconds{{{LABELS}}}": "9x20",
            f"ptft_work_limit_seconds{{{LABELS}}}": "10x20",
        },
        *("15m", "PtftQueueNearCap", True),
    ),
    "traffic has moved": (
        {f'ptft_drift_moved{{{LABELS},kind="image"}}': "1x90"},
        *("80m", "PtftDrift", True),
    ),
    "an upgrade": (
        {
            f'ptft_model_info{{{LABELS},digest="a"}}': "1x20 _x80",
            f'ptft_model_info{{{LABELS},digest="b"}}': "_x10 1x90",
        },
        *("60m", "PtftModelsMixed", False),
    ),
    "an upgrade that does not end": (
        {
            f'ptft_model_info{{{LABELS},digest="a"}}': "1x90",
            f'ptft_model_info{{{LABELS},digest="b"}}': "_x10 1x80",
        },
        *("60m", "PtftModelsMixed", True),
    ),
    "two pods of one model": (
        {
            f'ptft_model_info{{{LABELS},digest="a",pod="a"}}': "1x90",
            f'ptft_model_info{{{LABELS},digest="a",pod="b"}}': "1x90",
        },
        *("60m", "PtftModelsMixed", False),
    ),
    "the gate failed": (
        {'kube_job_status_failed{namespace="prod",job_name="demo-ptft-gate"}': "1x10"},
        *("5m", "PtftGateFailed", True),
    ),
    "another job failed": (
        {'kube_job_status_failed{namespace="prod",job_name="demo-ptft-gateway"}': "1x10"},
        *("5m", "PtftGateFailed", False),
    ),
    "the last run of a CronJob failed": (
        job("train-100", 100, "failed") | job("train-50", 50, "complete"),
        *("5m", "PtftJobFailed", True),
    ),
    "the run after it went through": (
        job("train-100", 100, "failed") | job("train-150", 150, "complete"),
        *("5m", "PtftJobFailed", False),
    ),
    "another kind's run went through": (
        job("embed-1a2b", 100, "failed") | job("train-150", 150, "complete"),
        *("5m", "PtftJobFailed", True),
    ),
    "a job of another release failed": (
        job("batch-100", 100, "failed"),
        *("5m", "PtftJobFailed", False),
    ),
}


@pytest.fixture(scope="module")
def rules(ptft_chart: ChartUnderTest) -> Release:
    return ptft_chart.render({"metrics.rules.enabled": True})


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=folder)


@needs_promtool
def test_promtool_reads_the_rules(rules: Release, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules.get("PrometheusRule")["spec"]))
    done = promtool(tmp_path, "check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "FAILED" not in done.stdout


@needs_promtool
def test_alerts_come_when_they_should(rules: Release, tmp_path: Path) -> None:
    """All cases in one call: which of them is wrong, promtool says."""
    spec = rules.get("PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    known = {rule["alert"]: rule for rule in spec["groups"][0]["rules"]}
    assert {alert for _, _, alert, _ in CASES.values()} == set(known)
    for slow in (False, True):  # six hours by the minute take promtool long
        names = [name for name, case in CASES.items() if case[1].startswith("390") is slow]
        for wrong in (False, True):  # with every expectation turned round each case has to fail
            tests = [_case(name, known, turned=wrong) for name in names]
            whole = {
                "rule_files": ["rules.yaml"],
                "evaluation_interval": "10m" if slow else "1m",
                "tests": tests,
            }
            (tmp_path / "test.yaml").write_text(yaml.safe_dump(whole))
            done = promtool(tmp_path, "test", "rules", "test.yaml")
            said = done.stdout + done.stderr
            if wrong:
                assert [name for name in names if f"name: {name}" not in said] == [], said
            else:
                assert done.returncode == 0, said


def _case(name: str, known: Mapping[str, Any], *, turned: bool) -> dict[str, Any]:
    series, minute, alert, comes = CASES[name]
    expected: list[dict[str, Any]] = []
    if comes is not turned:
        # promtool compares labels and annotations whole; a wrong text is a wrong expectation
        expected = [_expected(known[alert], name)] if not turned else [{"exp_labels": {"a": "b"}}]
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": value} for key, value in series.items()],
        "alert_rule_test": [{"eval_time": minute, "alertname": alert, "exp_alerts": expected}],
    }


SAID = {  # what the summaries fill in
    "2 % fail for an hour": "2%",
    "0.7 % fail for six hours": "0.7%",
    "a fifth is slow": "20%",
    "7 % are slow for six hours": "7%",
    "the queue of one pod is nearly full": "97.66%",
    "few items that are much work": "90%",
    "an upgrade that does not end": "2",
}
OWN_LABELS = {
    "traffic has moved": {"kind": "image"},
    "nobody is scraped": {"namespace": "prod", "job": "demo-ptft"},
    "the gate failed": {"job_name": "demo-ptft-gate"},
    "the last run of a CronJob failed": {"job_name": "demo-ptft-train"},
    "another kind's run went through": {"job_name": "demo-ptft-embed"},
}


def _expected(rule: Mapping[str, Any], name: str) -> dict[str, Any]:
    summary = str(rule["annotations"]["summary"])
    own = OWN_LABELS.get(name, {})
    for label, value in own.items():
        summary = summary.replace(f"{{{{ $labels.{label} }}}}", value)
    for form in ("{{ $value | humanizePercentage }}", "{{ $value }}"):
        summary = summary.replace(form, SAID.get(name, ""))
    return {"exp_labels": {**rule["labels"], **own}, "exp_annotations": {"summary": summary}}


def test_pods_that_may_be_none_are_not_missed(ptft_chart: ChartUnderTest) -> None:
    def down(settings: dict[str, Any]) -> str:
        release = ptft_chart.render({"metrics.rules.enabled": True, **settings})
        (group,) = release.get("PrometheusRule")["spec"]["groups"]
        return next(str(one["expr"]) for one in group["rules"] if one["alert"] == "PtftDown")

    keda = {
        "autoscaling.enabled": True,
        "autoscaling.by": "keda",
        "autoscaling.minReplicas": 0,
        "autoscaling.targetWorkSeconds": 1,
        "autoscaling.keda.serverAddress": "http://prometheus:9090",
        "autoscaling.keda.wakeQuery": "sum(waiting)",
    }
    assert "absent" in down({})
    assert "absent" not in down(keda)


def test_budgets_stay_below_what_can_be(ptft_chart: ChartUnderTest) -> None:
    """14.4 times a tenth is more than every request: such an alert would never come."""
    release = ptft_chart.render({"metrics.rules.enabled": True, "metrics.rules.availability": 0.9})
    (group,) = release.get("PrometheusRule")["spec"]["groups"]
    fast = next(one for one in group["rules"] if one["alert"] == "PtftErrorBudgetBurnsFast")
    assert fast["expr"].count("> 0.99") == 2
