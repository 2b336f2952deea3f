"""What every section of the configuration is."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from helios_services.errors import ExpectedError

PositiveFloat = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class ConfigError(ExpectedError, ValueError):
    """The configuration cannot be used; the message names each field, value and what is allowed."""


class Section(BaseModel):
    """Frozen, and strict about unknown names. The text below a setting is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
