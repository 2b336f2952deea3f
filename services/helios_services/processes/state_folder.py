"""One `helios up` for each state folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helios_services.config import ConfigError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the folder for this process, as long as it lives. Raises ConfigError naming the process that has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"state_dir: {folder} is in use by the `helios up` with process id {file.read()}; end that one, or set "
                "HELIOS_STATE_DIR to another folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
