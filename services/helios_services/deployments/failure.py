"""Why an application does not run, in one line for each deployment: Serve shows the replicas' tracebacks."""

import re
from collections.abc import Mapping

from ray import serve
from ray.serve.schema import DeploymentStatus

FAILED = (DeploymentStatus.DEPLOY_FAILED, DeploymentStatus.UNHEALTHY)
_ERROR = re.compile(r"^\s*(?:[a-z_]\w*\.)*([A-Z]\w*): (.+)")
"""The last line of a traceback, without the module."""


def why_not_running(app: str) -> str:
    """What keeps the application's deployments from running; empty if Serve does not say."""
    application = serve.status().applications.get(app)
    if application is None:
        return ""
    return causes({name: d.message for name, d in application.deployments.items() if d.status in FAILED})


def causes(messages: Mapping[str, str]) -> str:
    """One line for each deployment. messages: what Serve says of them."""
    return "\n".join(f"{name}: did not start: {cause(message)}" for name, message in messages.items())


def cause(message: str) -> str:
    """The error that ended the constructor, with its message in one line; the message's last line if there is none."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if _ERROR.match(line)]
    if not errors:
        return lines[-1] if lines else "no reason is known; see Ray's log"
    kind, first = _ERROR.match(lines[errors[-1]]).groups()  # type: ignore[union-attr]
    return f"{kind}: " + "; ".join([first, *lines[errors[-1] + 1 :]])
