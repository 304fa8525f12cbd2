"""OpenAI's own client, and what stands on it."""

import asyncio
from typing import Any

import numpy as np
from http_run import Job

KEY = "none"  # where the service asks for none, the client still wants one


def openai(job: Job) -> dict[str, Any]:
    """Lists up to 2,048 inputs, both encodings, dimensions, usage, models, and what is refused."""
    import openai as library

    client = library.OpenAI(base_url=f"{job.url}/v1", api_key=KEY, max_retries=0)
    create = client.embeddings.create
    answer = create(model=job.model, input=job.texts, user="somebody")
    rows = [one.embedding for one in answer.data]
    plain = create(model=job.model, input=job.texts, encoding_format="float")
    bits = np.array([one.embedding for one in plain.data], np.float32)
    assert np.array_equal(bits, np.array(rows, np.float32)), "base64 and float differ"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(job.texts)
    many = create(model=job.alias, input=[f"{n} cats" for n in range(2048)])
    assert [one.index for one in many.data] == list(range(2048))
    assert len(many.data[2047].embedding) == job.dim
    (cut,) = create(model=job.model, input=job.texts[0], dimensions=job.cut).data
    short = np.array(rows[0][: job.cut])
    assert np.allclose(cut.embedding, short / np.linalg.norm(short), atol=1e-5), "dimensions"
    assert [one.id for one in client.models.list()][:2] == [job.model, job.alias]
    assert client.models.retrieve(job.alias).object == "model"
    _refused(client, job, library)
    pictures = create(model=job.model, input=job.uris())
    return {"text": rows, "image": [one.embedding for one in pictures.data]}


def _refused(client: Any, job: Job, library: Any) -> None:
    for values, kind, param in (
        ({"input": [[1, 2, 3]]}, library.UnprocessableEntityError, "input"),
        ({"input": [1, 2, 3]}, library.UnprocessableEntityError, "input"),
        ({"input": "a", "dimensions": job.cut + 1}, library.UnprocessableEntityError, "dimensions"),
        ({"input": "a", "model": "another"}, library.NotFoundError, "model"),
        ({"input": ["a"] * 2049}, library.APIStatusError, "input"),
    ):
        try:
            client.embeddings.create(**{"model": job.model, **values})
        except kind as error:
            assert error.param == param, (values, error.param)
            assert error.code, values
            assert error.type, values
        else:
            raise AssertionError(f"{str(values)[:80]}: answered")
    try:
        client.models.retrieve("another")
    except library.NotFoundError as error:
        assert error.code == "model_not_found"


def openai_async(job: Job) -> dict[str, Any]:
    """Side by side."""
    import openai as library

    async def run() -> tuple[list[Any], Any]:
        async with library.AsyncOpenAI(base_url=f"{job.url}/v1", api_key=KEY) as client:
            create = client.embeddings.create
            one_by_one = [create(model=job.model, input=text) for text in job.texts]
            pictures = create(model=job.model, input=job.uris(), encoding_format="float")
            return await asyncio.gather(*one_by_one), await pictures

    texts, pictures = asyncio.run(run())
    return {
        "text": [one.data[0].embedding for one in texts],
        "image": [one.embedding for one in pictures.data],
    }


def langchain(job: Job) -> dict[str, Any]:
    """LangChain's OpenAIEmbeddings with the setting that it documents for other providers."""
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        model=job.model, base_url=f"{job.url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    rows = embeddings.embed_documents(job.texts)
    assert np.allclose(embeddings.embed_query(job.texts[0]), rows[0], atol=1e-6)
    assert np.allclose(asyncio.run(embeddings.aembed_documents(job.texts)), rows, atol=1e-6)
    return {"text": rows, "image": embeddings.embed_documents(job.uris())}


def llama_index(job: Job) -> dict[str, Any]:
    """LlamaIndex's OpenAILikeEmbedding."""
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    embedding = OpenAILikeEmbedding(
        model_name=job.model, api_base=f"{job.url}/v1", api_key=KEY, embed_batch_size=4
    )
    rows = embedding.get_text_embedding_batch(job.texts)
    assert np.allclose(embedding.get_query_embedding(job.texts[0]), rows[0], atol=1e-6)
    return {"text": rows}
