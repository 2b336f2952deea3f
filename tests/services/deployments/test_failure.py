"""Why a replica does not start, out of what Serve shows; and what is checked before anything starts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helios_services.config import ConfigError, ModelConfig, ServiceConfig
from helios_services.deployments.failure import cause, causes
from helios_services.deployments.serving import settled

TRACEBACK = """The deployment failed to start 3 times in a row. This may be due to a problem with its constructor:
\x20 Traceback (most recent call last):
\x20   File "replica.py", line 9, in initialize
\x20     await self._call()
ray.exceptions.RayTaskError(FileNotFoundError): ray::ServeReplica:helios:denoiser.initialize() (pid=7, ip=127.0.0.1)
\x20   File "load.py", line 3, in load
helios_engine.errors.CheckpointError: /m/film.safetensors: cannot be read: No such file
/m/other.safetensors: tensor a: is unexpected
"""


def test_the_last_error_of_a_traceback_is_the_cause_with_its_whole_message() -> None:
    assert cause(TRACEBACK) == (
        "CheckpointError: /m/film.safetensors: cannot be read: No such file; "
        "/m/other.safetensors: tensor a: is unexpected"
    )
    assert cause("torch.OutOfMemoryError: CUDA out of memory.") == "OutOfMemoryError: CUDA out of memory."


def test_without_an_error_the_last_line_tells() -> None:
    assert cause("A replica failed.\nThe actor died: it was killed by the kernel.\n") == (
        "The actor died: it was killed by the kernel."
    )
    assert "no reason is known" in cause("")


def test_each_deployment_has_its_line() -> None:
    assert causes({"denoiser": "ValueError: a", "decoder": "ValueError: b"}) == (
        "denoiser: did not start: ValueError: a\ndecoder: did not start: ValueError: b"
    )


def test_an_adapter_that_cannot_be_used_is_refused_before_anything_starts(checkpoint: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.safetensors"
    save_file({"transformer.nowhere.lora_A.weight": torch.zeros(1, 4)}, strange)
    for models, named in (
        ({"loras": {"film": str(tmp_path / "film.safetensors")}}, ["model.loras.film", "film.safetensors"]),
        ({"merged_loras": {str(strange): 1.0}}, ["model.merged_loras", "strange.safetensors", "nowhere"]),
    ):
        config = ServiceConfig(model=ModelConfig.model_validate({"checkpoint": str(checkpoint)} | models))
        with pytest.raises(ConfigError) as caught:
            settled(config)
        for part in named:
            assert part in str(caught.value)
