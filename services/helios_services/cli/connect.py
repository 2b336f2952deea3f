"""Clients of the command line: address by option, keys and certificates by environment."""

import os
from pathlib import Path

from helios_services.cli.errors import UserError
from helios_services.client import Connection, HeliosClient


def connect(server: str) -> HeliosClient:
    """HELIOS_API_KEY, or what the file HELIOS_API_KEY_FILE holds: sent with each call. HELIOS_TLS=1: encrypt;
    HELIOS_CA_FILE: trusting these authorities only.
    """
    ca_file = os.environ.get("HELIOS_CA_FILE", "")
    connection = Connection(
        api_key=_api_key(),
        tls=os.environ.get("HELIOS_TLS", "") not in ("", "0"),
        ca_file=Path(ca_file) if ca_file else None,
    )
    try:
        return HeliosClient(server, connection)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None


def _api_key() -> str:
    key, file = os.environ.get("HELIOS_API_KEY", ""), os.environ.get("HELIOS_API_KEY_FILE", "")
    if not file:
        return key
    if key:
        raise UserError("HELIOS_API_KEY, HELIOS_API_KEY_FILE: both are set; allowed: one of both")
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise UserError(f"HELIOS_API_KEY_FILE: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"HELIOS_API_KEY_FILE: {file}: is no text") from None
