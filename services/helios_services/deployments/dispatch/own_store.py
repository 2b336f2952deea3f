"""Where a dispatcher of a cluster learns of the job store, so that no other process of it does."""

from helios_services.config import ConfigError, ServiceConfig, load_config


def with_own_store(config: ServiceConfig) -> ServiceConfig:
    """The configuration with `redis` as this process' environment has it, where the application was built without.

    Raises ConfigError if the environment does not name the store either.
    """
    if config.redis.url:
        return config
    own = load_config().redis
    if not own.url:
        raise ConfigError("redis.url: is empty; a dispatcher's environment must name the job store (HELIOS_REDIS_URL)")
    return config.model_copy(update={"redis": own})
