"""A small typed client of the API: HeliosClient (blocking) and AsyncHeliosClient (asyncio)."""

from helios_services.client.blocking import HeliosClient
from helios_services.client.connection import Connection
from helios_services.client.errors import HeliosError
from helios_services.client.nonblocking import AsyncHeliosClient
from helios_services.client.segments import Segment

__all__ = ["AsyncHeliosClient", "Connection", "HeliosClient", "HeliosError", "Segment"]
