"""cloudctl: workspaces from a shell. It speaks only the public API, and imports nothing of ours.

main.py       the program: its commands, and how it ends
commands/     one file for each kind of thing that commands are about
session.py    what every command has: the API and the output
config.py     at which server one is signed in, and with which token
api.py        requests: tried again where that is safe, and errors in words
stream.py     streams of events, taken up again where they break
waiting.py    waiting for a status or for the end of a change, and showing how far it is
progress.py   what moves on a terminal
output.py     tables, blocks, JSON
errors.py     what can go wrong, each with its exit code
"""
