"""A mail server that takes what it gets, says no, or hangs up, as it is told."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as policy
from typing import cast


@dataclass
class MailServer:
    """What arrived, and what is answered: to RCPT, and to the end of a message.

    An empty answer hangs up instead.
    """

    port: int = 0
    received: list[EmailMessage] = field(default_factory=list)
    to_recipient: str = "250 yes"
    to_message: str = "250 taken"


@contextmanager
def listening() -> Iterator[MailServer]:
    """Run one on a free port."""
    mail = MailServer()

    class Session(socketserver.StreamRequestHandler):
        def say(self, line: str) -> bool:
            if line:
                self.wfile.write(f"{line}\r\n".encode())
            return bool(line)

        def handle(self) -> None:
            going = self.say("220 ready")
            while going and (line := self.rfile.readline()):
                verb = line.split()[0].upper() if line.split() else b""
                if verb == b"RCPT":
                    going = self.say(mail.to_recipient)
                elif verb == b"DATA":
                    going = self.say("354 go on") and self.take()
                else:
                    going = self.say("221 bye" if verb == b"QUIT" else "250 fine")
                    going = going and verb != b"QUIT"

        def take(self) -> bool:
            lines = list(iter(self.rfile.readline, b".\r\n"))
            message = message_from_bytes(b"".join(lines), policy=policy)
            mail.received.append(cast(EmailMessage, message))
            return self.say(mail.to_message)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        server.daemon_threads = True
        mail.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield mail
        finally:
            server.shutdown()
