"""Clients of the command line: address by option, keys and certificates by environment."""

import os
from collections.abc import Mapping
from pathlib import Path

from helios_services.cli.errors import UserError
from helios_services.client import Connection, HeliosClient


def connect(server: str) -> HeliosClient:
    """HELIOS_API_KEY, or what the file HELIOS_API_KEY_FILE holds: sent with each call. HELIOS_TLS=1: encrypt.
    HELIOS_CA_FILE: trusting these authorities only. HELIOS_CERTIFICATE_FILE, HELIOS_KEY_FILE: the client's own.
    """
    certificate, key = (_file(os.environ, f"HELIOS_{name}_FILE") for name in ("CERTIFICATE", "KEY"))
    if (certificate is None) != (key is None):
        raise UserError("HELIOS_CERTIFICATE_FILE, HELIOS_KEY_FILE: must be given together")
    connection = Connection(
        api_key=_api_key(),
        tls=certificate is not None or os.environ.get("HELIOS_TLS", "") not in ("", "0"),
        ca_file=_file(os.environ, "HELIOS_CA_FILE"),
        certificate_file=certificate,
        key_file=key,
    )
    try:
        return HeliosClient(server, connection)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None


def _file(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


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
