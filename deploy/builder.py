"""What making images asks of an engine. Standard library only, so that engines can import it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class RunResult:
    """How a one-off container ended, and everything that it wrote."""

    exit_code: int
    output: str


class BaseBuilder(Protocol):
    """What having a base to build on asks. Every method raises EngineError."""

    def architecture(self) -> str:
        """Return the engine's machine, in the kernel's word: x86_64, aarch64."""

    def image_id(self, reference: str) -> str | None:
        """Return the id of an image that the engine has, or None when it says it has none."""

    def pull(self, reference: str, timeout: float) -> bool:
        """Pull an image; False when no registry gave its first answer within `timeout` seconds."""

    def import_image(self, tar: BinaryIO, reference: str) -> str:
        """Make an image from a root file system (a tar, may be gzipped); return its id."""


class Builder(BaseBuilder, Protocol):
    """What building images asks. Every method raises EngineError."""

    def image_exists(self, reference: str) -> bool:
        """Whether the engine has this image."""

    def build(
        self,
        context: BinaryIO,
        tag: str,
        labels: Mapping[str, str],
        build_args: Mapping[str, str],
        *,
        anew: bool = False,
    ) -> str:
        """Build a tar of a Dockerfile and its files with no network; return the image's id.

        `anew`: without what the engine remembers of earlier builds.
        """

    def tag_image(self, reference: str, name: str) -> None:
        """Give an image one more name, and take it from the one that had it."""

    def remove_image(self, reference: str) -> None:
        """Remove a name of an image, and the image with the last one, unless a container uses it.

        Removing what is gone is fine.
        """

    def remove_leftovers(self, label: str, before: datetime) -> int:
        """Remove what builds with this label left behind before then; return how much went.

        Only what nothing stands on: the engine takes it instead of making it again.
        """

    def run_once(self, reference: str, command: tuple[str, ...], timeout: float) -> RunResult:
        """Run a command instead of the image's own, hardened like an instance, and remove it.

        No network; /data, /run/instance and /tmp are tmpfs that uid 10001 may write to. EngineError
        also when it is not over after `timeout` seconds.
        """
