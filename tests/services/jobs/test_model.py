"""Random histories of the job store: the Lua scripts in a real Redis against a plain model of what they are for.

After every call, everything in Redis is held to the model, and the call is repeated, as a client does whose answer got
lost: it must be answered the same and change nothing. HELIOS_MODEL_EXAMPLES=1000 tries more histories, other ones each
time.
"""

import asyncio
import os
import re

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from helios_services.config import RedisConfig
from services.jobs.model.client_rules import ClientRules
from services.jobs.model.time_rules import TimeRules
from services.jobs.model.worker_rules import WorkerRules
from support.redis_clients import async_client

EXAMPLES = int(os.environ.get("HELIOS_MODEL_EXAMPLES", 0))
STEPS = 40
DATABASE = 9


class Histories(ClientRules, WorkerRules, TimeRules):
    """All that can happen to the store."""


@pytest.mark.timeout(3600 if EXAMPLES else 900)
def test_the_scripts_do_what_the_model_says(redis: RedisConfig) -> None:
    url = re.sub(r"(/|db=)0$", rf"\g<1>{DATABASE}", redis.url)
    with asyncio.Runner() as runner:
        client = async_client(url)
        machine = type("Machine", (Histories,), {"runner": runner, "client": client, "url": url})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=EXAMPLES or 100,
                    stateful_step_count=STEPS,
                    derandomize=not EXAMPLES,
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(client.aclose())
