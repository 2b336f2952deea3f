"""The HTTP door: the only folder of the gateway that knows HTTP. Calls are those of `calls/`, rules the guard's."""
