"""How long to go on trying what failed, and after which pauses."""

import random
import time

# For so long a command tries to get through; while it waits for something, for longer.
PATIENCE = 5.0
WAITING_PATIENCE = 60.0
# Longer pauses than this that a server asks for are told to the person, not waited for.
LONGEST_PAUSE = 30.0
FIRST_PAUSE, MAX_PAUSE = 0.2, 5.0


class Patience:
    """How long somebody goes on trying: pauses that grow, until `seconds` without success."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.refresh()

    def refresh(self) -> None:
        """Begin anew, after a success."""
        self._deadline = time.monotonic() + self.seconds
        self._pause = FIRST_PAUSE
        self._was_asked = False

    def pause(self, asked_for: float | None = None) -> float | None:
        """Return the seconds before another try; None when there shall be none."""
        now = time.monotonic()
        pause = self._pause * random.uniform(0.8, 1.2)
        self._pause = min(self._pause * 2, MAX_PAUSE)
        if asked_for is not None:
            if asked_for > LONGEST_PAUSE:
                return None
            pause = asked_for
            if not self._was_asked:  # once, also from somebody with less patience
                self._was_asked = True
                self._deadline = max(self._deadline, now + pause)
        return pause if now + pause <= self._deadline else None

    def wait(self) -> bool:
        """Pause before another try; False, at once, when there shall be none."""
        pause = self.pause()
        if pause is not None:
            time.sleep(pause)
        return pause is not None
