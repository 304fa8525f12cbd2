"""The service reads what the chart hands over."""

from dataclasses import fields
from pathlib import Path

import pytest

from ptft.errors import UsageError
from serving.settings import Settings, read_settings, unknown_settings

from .conftest import VALUE_FILES, ChartUnderTest, environment, read_values


def test_settings_left_open_are_left_to_the_service(ptft_chart: ChartUnderTest) -> None:
    names = {name for name in environment(ptft_chart.render().server) if name.startswith("PTFT_")}
    assert names == {"PTFT_THREADS", "PTFT_HOLD_S"}  # a pod is not asked again, a server may be


def test_settings_are_those_of_the_service(ptft_chart: ChartUnderTest) -> None:
    """Each setting has a value in the chart, and the service reads what the chart hands over."""
    changed = read_values(Path(__file__).with_name("every_value_changed.yaml"))
    values = {"serving": changed["serving"], "model": {"digest": changed["model"]["digest"]}}
    values["model"] |= {"path": "/srv/model", "signature": changed["model"]["signature"]}
    values["search"] = {"claim": "index"}
    values |= {"metrics": {"scrape": "none"}, "canary": {"enabled": True, "mirror": 0.5}}
    given = {
        name: value
        for name, value in environment(ptft_chart.render(values=values).server).items()
        if name.startswith("PTFT_")
    }
    assert given.keys() == {f"PTFT_{field.name.upper()}" for field in fields(Settings)}
    assert unknown_settings(given) == []
    assert given.pop("PTFT_OTLP_ENDPOINT") == "http://a.example:4318"  # reading needs the exporter
    assert read_settings(given) == Settings(
        model=Path("/srv/model"),
        model_digest="sha256:" + "9" * 64,
        model_signed_by=Path("/etc/ptft/signer/other.pem"),
        index=Path("/index"),
        precision="int8",
        threads=9,
        max_body_bytes=9999,
        max_pixels=9,
        max_batch=9,
        micro_batch=9,
        max_inputs=99,
        max_queue=9,
        max_prompts=9,
        max_characters=9,
        max_memory_bytes=9999999,
        max_work_s=9,
        formats=("png", "tiff"),
        jpeg="exact",
        timeout_s=9.5,
        list_timeout_s=99,
        body_idle_s=9,
        header_s=9,
        idle_s=9,
        max_header_bytes=9999,
        max_connections=9,
        hang_s=9,
        hold_s=9,
        drain_s=0,
        keys_file=Path("/etc/ptft/keys/other"),
        keys="a sha256:9",
        metrics="key",
        cors_origins=("https://a.example", "https://b.example"),
        log_format="json",
        access_log=True,
        trace_ratio=0,
        provider="cuda",
        provider_options=(("device_id", "1"),),
        cache_bytes=9,
        mirror_url="http://demo-ptft-canary:80",
        mirror_share=0.5,
        aliases=("other", "another"),
        dimensions=(9,),
        url_hosts=("a.example",),
        url_s=9,
    )


def test_settings_of_the_examples_are_accepted(ptft_chart: ChartUnderTest) -> None:
    for file in VALUE_FILES:
        given = environment(ptft_chart.render(values=read_values(file)).server)
        told = {name: value for name, value in given.items() if isinstance(value, str)}
        assert read_settings(told).precision == told.get("PTFT_PRECISION", "fp32")
        with pytest.raises(UsageError, match="PTFT_PRECISION"):
            read_settings({**told, "PTFT_PRECISION": "fp31"})


def test_threads_follow_the_cpu_request(ptft_chart: ChartUnderTest) -> None:
    field = environment(ptft_chart.render().server)["PTFT_THREADS"]
    assert field == {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}
    told = ptft_chart.render({"serving.threads": 3}).server
    assert environment(told)["PTFT_THREADS"] == "3"
    unknown = ptft_chart.render({"resources.requests": {"cpu": None}}).server
    assert "PTFT_THREADS" not in environment(unknown)
