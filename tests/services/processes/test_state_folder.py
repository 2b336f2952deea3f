"""A state folder has one holder at a time, by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helios_services.config import ConfigError
from helios_services.processes.state_folder import held

HOLDER = """
import sys
from pathlib import Path
from helios_services.processes.state_folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_has_it_and_a_dead_holder_has_it_no_more(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError) as caught, held(tmp_path):
            pass
        for part in (str(tmp_path), f"process id {holder.pid};", "HELIOS_STATE_DIR"):
            assert part in str(caught.value)
        holder.kill()
    with held(tmp_path):
        assert (tmp_path / "up.lock").read_text() == str(os.getpid())
