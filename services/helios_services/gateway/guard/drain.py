"""The end of a gateway, as streams see it."""

from helios_services.gateway.guard.refusal import Code, Refusal


class Drain:
    """Tells streams to end when the gateway shuts down."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """Streams end from now on."""
        self.begun = True

    def check(self, hint: str) -> None:
        """Raises UNAVAILABLE, with a hint how to go on, once it has begun."""
        if self.begun:
            raise Refusal(Code.UNAVAILABLE, f"the gateway is shutting down; {hint}", retry_after_s=1.0)
