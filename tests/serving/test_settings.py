"""Environment variables to settings, and what is said of wrong ones."""

from pathlib import Path

import pytest

import serving.settings
from ptft.errors import UsageError
from serving.settings import available_cpus, read_settings, unknown_settings


def test_defaults_and_values() -> None:
    assert read_settings({}).model == Path("/model")
    settings = read_settings(
        {
            "PTFT_MODEL": "some/where",
            "PTFT_MAX_PIXELS": "1000",
            "PTFT_PRECISION": "int8",
            "PTFT_TIMEOUT_S": "2.5",
            "PTFT_THREADS": "3",
            "PTFT_PROVIDER": "cuda",
            "PTFT_PROVIDER_OPTIONS": "device_id=1, gpu_mem_limit=9",
            "PTFT_ALIASES": "ViT-B-32__openai, other",
            "PTFT_DIMENSIONS": "64,128",
            "PTFT_URL_HOSTS": "a.example, http://b.example:81",
        }
    )
    assert settings.aliases == ("ViT-B-32__openai", "other")
    assert settings.dimensions == (64, 128)
    assert settings.url_hosts == ("a.example", "http://b.example:81")
    assert settings.model == Path("some/where")
    assert (settings.max_pixels, settings.precision, settings.threads) == (1000, "int8", 3)
    assert settings.timeout_s == 2.5
    assert settings.provider_options == (("device_id", "1"), ("gpu_mem_limit", "9"))
    assert settings.micro_batch is None


def test_a_connection_outlasts_what_proxies_keep() -> None:
    """Who asks closes first: 60 s in ingress-nginx, 90 in Traefik, 600 in Google's."""
    assert read_settings({}).idle_s > 600


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("PTFT_THREADS", "0", "PTFT_THREADS=0: allowed: a whole number of at least 1"),
        ("PTFT_THREADS", "two", "PTFT_THREADS=two"),
        ("PTFT_MAX_BODY_BYTES", "1", "at least 1024"),
        ("PTFT_PRECISION", "fp61", "did you mean 'fp16'"),
        ("PTFT_MODEL_DIGEST", "abc", "sha256: and 64 hex digits"),
        ("PTFT_TIMEOUT_S", "nan", "seconds from 0.1 to 3600"),
        ("PTFT_CORS_ORIGINS", "*,https://a.example", "allowed: * alone, or origins"),
        ("PTFT_CORS_ORIGINS", "a.example", "allowed: http://host:port, or https"),
        ("PTFT_OTLP_ENDPOINT", "collector:4318", "allowed: http://host:port/path, or https"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", "allowed: http://host:port/path"),
        ("PTFT_TRACE_RATIO", "5", "allowed: a share, 0 to 1"),
        ("PTFT_ACCESS_LOG", "yes", "allowed: off, on"),
        ("PTFT_PROVIDER", "cudo", "did you mean 'cuda'"),
        ("PTFT_PROVIDER_OPTIONS", "device_id=1", "allowed: with PTFT_PROVIDER=cuda, tensorrt"),
        ("PTFT_PROVIDER_OPTIONS", "device_id", "allowed: NAME=VALUE,NAME=VALUE"),
        ("PTFT_DIMENSIONS", "64,all", "PTFT_DIMENSIONS=all: allowed: whole numbers from 1"),
        ("PTFT_URL_HOSTS", "a.example,b.example/x", "b.example/x: allowed: HOST, HOST:PORT or"),
        ("PTFT_URL_HOSTS", "*", "a whole name each"),
        ("PTFT_URL_HOSTS", "*.example.org", "a whole name each"),
        ("PTFT_THREADS", "9" * 5000, "9...: allowed: a whole number of at least 1"),
        ("PTFT_DIMENSIONS", "9" * 5000, "allowed: whole numbers from 1"),
        ("PTFT_MODEL", "~nobody-here/model", "PTFT_MODEL=~nobody-here/model: "),
        ("PTFT_MAX_QUEUE", "8", "at least 64 (PTFT_MAX_BATCH)"),
    ],
)
def test_wrong_values(name: str, value: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings({name: value})
    assert name in str(caught.value)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["PTFT_MIRROR_URL", "PTFT_OTLP_ENDPOINT", "PTFT_CORS_ORIGINS"])
@pytest.mark.parametrize(
    "value",
    ["http://me:s3cret@host:1", "http://:s3cret@host", "me:s3cret@host", "http://me:s3/cr@et@host"],
)
def test_a_password_in_an_address_is_refused_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=r"\*\*\*@host.*: allowed: .*without a name or") as caught:
        read_settings({name: value})
    assert "s3" not in str(caught.value)


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read_settings({"PTFT_MODEL": "~/model"}).model == Path("/home/me/model")


def test_misspelt_names_are_told() -> None:
    (message,) = unknown_settings({"PTFT_MAX_PIXEL": "1", "PTFT_MODEL": "x", "HOME": "/"})
    assert message.startswith("PTFT_MAX_PIXEL is no setting")
    assert "'PTFT_MAX_PIXELS'" in message


def test_a_container_limits_the_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(serving.settings, "CGROUP_CPU_MAX", limit)
    unlimited = available_cpus()
    limit.write_text("max 100000\n")
    assert available_cpus() == unlimited
    limit.write_text("50000 100000\n")
    assert available_cpus() == 1


def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"PTFT_FORMATS=heic: .*'ptft\[heic\]'"):
        read_settings({"PTFT_FORMATS": "jpeg,heic"})
