"""Clients of Infinity, vLLM, Jina, Cohere and Immich, and one that is generated."""

import asyncio
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import requests
from http_run import Job

HERE = Path(__file__).resolve().parent


def infinity(job: Job) -> dict[str, Any]:
    """Infinity's vision client, which sends pictures as JPEG."""
    from infinity_client.vision_client import InfinityVisionAPI
    from PIL import Image

    client = InfinityVisionAPI(url=job.url, model=job.model)
    texts, tokens = client.embed(job.model, job.texts).result()
    assert tokens > len(job.texts)
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in job.data()]
    pictures, _ = client.image_embed(job.model, images).result()
    rows = np.concatenate(pictures)
    sent = [_jpeg(image) for image in images]
    exact = np.array([_embed_image(job, data) for data in sent])
    assert np.allclose(rows, exact, atol=1e-5), "pictures differ from the same JPEGs"
    return {"text": np.concatenate(texts)}


def _jpeg(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="JPEG")
    return stream.getvalue()


def _embed_image(job: Job, data: bytes) -> list[float]:
    headers = {"content-type": "image/jpeg"}
    answer = requests.post(f"{job.url}/v1/embed/image", data=data, headers=headers, timeout=60)
    found: list[float] = answer.json()["results"][0]["embedding"]
    return found


def infinity_generated(job: Job) -> dict[str, Any]:
    """The client that Infinity generates from its own OpenAPI document."""
    from infinity_client import Client
    from infinity_client.api.default import embeddings, health, models, rerank
    from infinity_client.models import (
        EmbeddingEncodingFormat,
        OpenAIEmbeddingInputImage,
        OpenAIEmbeddingInputText,
        RerankInput,
    )

    with Client(base_url=job.url) as client:
        plain = {"model": job.model, "encoding_format": EmbeddingEncodingFormat.FLOAT}
        texts = embeddings.sync(
            client=client, body=OpenAIEmbeddingInputText(input_=job.texts, **plain)
        )
        pictures = embeddings.sync(
            client=client, body=OpenAIEmbeddingInputImage(input_=job.uris(), **plain)
        )
        ranked = rerank.sync(client=client, body=RerankInput(job.texts[0], job.texts))
        listed = models.sync(client=client)
        assert health.sync(client=client)["unix"] > 1e9
    assert [one.id for one in listed.data][:1] == [job.model]
    assert ranked.results[0].index == 0
    assert ranked.usage.total_tokens > len(job.texts)
    rows = [one.embedding for one in texts.data]
    return {"text": rows, "image": [one.embedding for one in pictures.data]}


def vllm(job: Job) -> dict[str, Any]:
    """The requests of vLLM's examples: a message, of a text or a picture."""

    def ask(part: dict[str, Any]) -> list[float]:
        body = {
            "model": job.model,
            "messages": [{"role": "user", "content": [part]}],
            "encoding_format": "float",
            "add_special_tokens": False,
            "continue_final_message": False,
        }
        answer = requests.post(f"{job.url}/v1/embeddings", json=body, timeout=60)
        answer.raise_for_status()
        found: list[float] = answer.json()["data"][0]["embedding"]
        return found

    pictures = [ask({"type": "image_url", "image_url": {"url": uri}}) for uri in job.uris()]
    return {"text": [ask({"type": "text", "text": text}) for text in job.texts], "image": pictures}


def jina(job: Job) -> dict[str, Any]:
    """The requests of Jina's API: texts and pictures in one list."""
    inputs = [*({"text": text} for text in job.texts), *({"image": one} for one in job.coded())]
    body = {
        "model": job.model,
        "input": inputs,
        "normalized": True,
        "embedding_type": "float",
        "task": "retrieval.passage",
    }
    answer = requests.post(f"{job.url}/v1/embeddings", json=body, timeout=60)
    answer.raise_for_status()
    rows = [one["embedding"] for one in answer.json()["data"]]
    documents = [{"image": one} for one in job.coded()]
    ranked = requests.post(
        f"{job.url}/v1/rerank",
        json={"model": job.model, "query": job.texts[0], "documents": documents, "top_n": 2},
        timeout=60,
    ).json()
    pictures = np.array(rows[len(job.texts) :])
    cosines = pictures @ np.array(rows[0])
    assert [one["index"] for one in ranked["results"]] == np.argsort(-cosines)[:2].tolist()
    return {"text": rows[: len(job.texts)], "image": pictures}


def cohere(job: Job) -> dict[str, Any]:
    """Cohere's client, v2."""
    import cohere as library

    client = library.ClientV2(api_key="none", base_url=job.url)
    texts = client.embed(
        model=job.model,
        input_type="search_document",
        texts=job.texts,
        embedding_types=["float"],
        truncate="END",
    )
    pictures = client.embed(
        model=job.model, input_type="image", images=job.uris(), embedding_types=["float", "base64"]
    )
    assert len(pictures.embeddings.base64) == len(job.pictures)
    ranked = client.rerank(model=job.model, query=job.texts[0], documents=job.texts, top_n=2)
    assert ranked.results[0].index == 0
    assert len(ranked.results) == 2
    try:
        client.embed(model=job.model, input_type="image", texts=["a"], embedding_types=["int8"])
    except library.UnprocessableEntityError as error:
        assert error.body["error"]["param"].startswith("embedding_types")
    else:
        raise AssertionError("int8 was answered")
    return {"text": texts.embeddings.float_, "image": pictures.embeddings.float_}


def immich(job: Job) -> dict[str, Any]:
    """The requests of Immich's server, written by Node's own fetch and FormData."""
    node = shutil.which("node")
    assert node, "node is not installed"
    command = [node, HERE / "http_immich.mjs", job.url, job.alias, json.dumps(job.texts)]
    done = subprocess.run(
        [*command, *job.pictures], check=True, capture_output=True, text=True, timeout=120
    )
    found = json.loads(done.stdout)
    return {"text": found["texts"], "image": found["pictures"]}


def generated(job: Job) -> dict[str, Any]:
    """A client that openapi-python-client makes of the service's own document."""
    from openapi_spec_validator import validate

    url = f"{job.url}/openapi.json"
    validate(requests.get(url, timeout=60).json())
    with tempfile.TemporaryDirectory() as folder:
        program = Path(sys.executable).with_name("openapi-python-client")
        command = [program, "generate", "--url", url, "--meta", "none", "--fail-on-warning"]
        command += ["--output-path", Path(folder) / "made", "--overwrite"]
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"  # its own ruff
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        sys.path.insert(0, folder)
        return _with_generated(job)


def _with_generated(job: Job) -> dict[str, Any]:
    load = importlib.import_module
    made, models = load("made"), load("made.models")
    api = {
        name: load(f"made.api.default.{name}")
        for name in ("embed_text", "embed_image", "embeddings", "model", "rerank", "similarity")
    }
    with made.Client(base_url=job.url) as client:
        assert api["model"].sync(client=client).model == job.model
        texts = api["embed_text"].sync(client=client, body=models.EmbedTexts(texts=job.texts))
        images = models.EmbedImages(images=job.coded())
        pictures = api["embed_image"].sync(client=client, body=images)
        body = models.OpenAIEmbeddings.from_dict({"input": job.texts})
        answer = asyncio.run(api["embeddings"].asyncio(client=client, body=body))
        ranked = api["rerank"].sync(
            client=client,
            body=models.Rerank.from_dict({"query": job.texts[0], "documents": job.texts}),
        )
        scores = api["similarity"].sync(
            client=client, body=models.Similarity(texts=job.texts, images=job.coded())
        )
        refused = api["embed_text"].sync(client=client, body=models.EmbedTexts(texts=[]))
    rows = [one.embedding for one in texts.results]
    assert np.allclose([one.embedding for one in answer.data], rows, atol=1e-6)
    assert ranked.results[0].index == 0
    assert len(scores.results[0].cosines) == len(job.texts)
    assert refused.error.param == "texts"
    return {"text": rows, "image": [one.embedding for one in pictures.results]}
