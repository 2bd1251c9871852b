"""Mail on a developer's machine: a file a message, and on the console too."""

import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.filebased import EmailBackend
from django.utils import timezone


class FileAndConsoleBackend(EmailBackend):
    """Write each message to a file in EMAIL_FILE_PATH and print it."""

    def open(self) -> bool | None:
        """Begin a file: no two processes, nor two mails of one second, share a name."""
        if self.stream is None:
            name = f"{timezone.now():%Y%m%d-%H%M%S}-{uuid4().hex}.log"
            self._fname = str(Path(settings.EMAIL_FILE_PATH) / name)
        return super().open()

    def write_message(self, message: EmailMessage) -> None:
        super().write_message(message)
        sys.stdout.write(f"\n{message.message().as_string()}\n")
        sys.stdout.flush()

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Send each message into a file of its own, so that readers need not split them."""
        for message in email_messages:
            super().send_messages([message])
        return len(email_messages)
