"""Which embeddings stay in the store: those of the chunk that is begun and of the one still on its way."""

from dataclasses import replace

import torch

from helios_engine.prompts import ScheduledPrompt
from helios_services.deployments.dispatch.prompt_book import PromptBook, prompt_key
from helios_services.jobs.records import Job, JobSpec
from helios_services.jobs.state import JobState

JOB = Job(
    id="a",
    spec=JobSpec(model="m", params={"prompt": "first"}, chunks_total=9),
    state=JobState.RUNNING,
    chunks_total=9,
    chunks_done=0,
    attempts=1,
    revision=1,
    created_s=0.0,
)


async def test_an_embedding_stays_until_its_last_chunk_is_in_the_store() -> None:
    stored: dict[str, bytes] = {}

    async def encode(prompt: str) -> torch.Tensor:
        return torch.full((2, 4), float(len(prompt)))

    async def save(key: str, data: bytes, keep: set[str]) -> None:
        for old in [old for old in stored if old not in keep]:
            del stored[old]
        stored[key] = data

    schedule = tuple(
        ScheduledPrompt(chunk_index=chunk, prompt=text, interpolation_chunks=0)
        for chunk, text in ((3, "second"), (4, "third"))
    )
    book = PromptBook(replace(JOB), schedule, {})
    for chunk, expected in ((2, {"first"}), (3, {"first", "second"}), (4, {"second", "third"})):
        await book.of_chunk(chunk, encode, save)
        assert set(stored) == {prompt_key(prompt) for prompt in expected}, chunk
    resumed = PromptBook(replace(JOB), schedule, stored)

    async def refuse(prompt: str) -> torch.Tensor:
        raise AssertionError(f"{prompt!r} was encoded again")

    assert float((await resumed.of_chunk(3, refuse, save))[0, 0]) == len("second")
