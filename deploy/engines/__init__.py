"""Where containers run. Which engine it is, only this module and the settings know."""

from functools import lru_cache

from django.conf import settings

from deploy.builder import Builder
from deploy.engines.base import Engine
from deploy.engines.docker import DockerEngine
from deploy.engines.docker_images import DockerImages


@lru_cache(maxsize=1)
def get_engine() -> Engine:
    """Return the engine of this installation; one client per process, shared by its threads."""
    return DockerEngine(
        url=settings.DOCKER_HOST,
        namespace=settings.NAMESPACE,
        run_dir=settings.RUN_DIR,
        endpoint_kind=settings.ENDPOINT_KIND,
        endpoint_host=settings.ENDPOINT_HOST,
        runtime=settings.CONTAINER_RUNTIME,
        router_group=settings.ROUTER_GROUP,
    )


@lru_cache(maxsize=1)
def get_builder() -> Builder:
    """Return what builds images for that engine."""
    return DockerImages(
        url=settings.DOCKER_HOST,
        namespace=settings.NAMESPACE,
        runtime=settings.CONTAINER_RUNTIME,
    )
