"""Documents are held to the code."""

import re
from itertools import pairwise
from pathlib import Path

from helios_services.jobs.state import FINAL, TRANSITIONS, Event, JobState

ROOT = Path(__file__).parents[2]


def test_architecture_draws_the_state_machine_as_it_is() -> None:
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\w+) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    drawn = {tuple(row) for row in rows if row[0] != "from"}
    assert drawn == {(start.value, event.value, end.value) for (start, event), end in TRANSITIONS.items()}


def test_final_states_are_the_ones_that_only_an_operator_leads_out_of() -> None:
    left = {start for start, event in TRANSITIONS if event is not Event.REQUEUE}
    assert set(JobState) - left == FINAL


def test_every_message_field_rpc_and_enum_value_is_commented() -> None:
    lines = (ROOT / "protos/helios/v1/video_generation.proto").read_text().splitlines()
    declared = re.compile(r"^\s*(rpc|message|service|enum)\s|^\s+[\w<>., ]+ = \d+;|^\s+[A-Z_]+ = \d+;")
    bare = [
        line.strip() for before, line in pairwise(lines) if declared.match(line) and not before.strip().startswith("//")
    ]
    assert bare == []
