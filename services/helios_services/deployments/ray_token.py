"""Token authentication of the Ray cluster that this process starts: without the token nobody runs code on it.

The mode is left to Ray, which turns it on for a cluster of its own where RAY_AUTH_MODE is unset (setting it once Ray is
imported would reach Ray's children and not this process); it is checked afterwards. A cluster that is there already
(`helios worker --address`) has a mode of its own: RAY_AUTH_MODE and the token then come from its operator.
"""

import os
import secrets

from helios_services.config import ConfigError
from helios_services.redaction import keep_secret

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def authenticate_ray() -> None:
    """Makes a token for this process and its children, unless the environment names one. Call it before `ray.init`.

    Ray would write one to ~/.ray/auth_token, readable by everybody on the machine. Raises ConfigError if the
    environment turns authentication off.
    """
    mode = os.environ.get(MODE)
    if mode is not None and mode.lower() != "token":
        raise ConfigError(f"{MODE}: {mode!r} is not allowed; allowed: token, or unset")
    if mode is None and TOKEN_FILE not in os.environ:  # where it is set, Ray may have read its token already
        os.environ.setdefault(TOKEN, secrets.token_hex(32))
    keep_secret(os.environ.get(TOKEN, ""))


def check_authenticated() -> None:
    """Raises ConfigError if Ray did not turn authentication on. Call it after `ray.init`."""
    if os.environ.get(MODE, "").lower() != "token":
        raise ConfigError(f"ray: did not turn token authentication on; Ray 2.60 or newer does, unless {MODE} is set")
