"""Mail on a developer's machine: a file a message, and on the console too."""

import sys
from collections.abc import Sequence

from django.core.mail import EmailMessage
from django.core.mail.backends.filebased import EmailBackend


class FileAndConsoleBackend(EmailBackend):
    """Write each message to a file in EMAIL_FILE_PATH and print it."""

    def write_message(self, message: EmailMessage) -> None:
        super().write_message(message)
        sys.stdout.write(f"\n{message.message().as_string()}\n")
        sys.stdout.flush()

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Send each message into a file of its own, so that readers need not split them."""
        for message in email_messages:
            self._fname = None
            super().send_messages([message])
        return len(email_messages)
