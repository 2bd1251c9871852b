"""The REST API under /api/v1/: everything that a customer can do to a workspace, from a script.

problems.py     errors, as problem documents with stable codes
callers.py      who asks: tokens, scopes, rates
reach.py        which workspaces a caller sees, and what it may do to them
door.py         what every request passes: the caller, the rate, idempotency keys
shapes.py       what goes in and comes out; operator_shapes.py: for operators
*_routes.py     the endpoints
schema.py       the OpenAPI document, with examples.py
guide.py        how it works, in words
reference.py    /api/v1/docs and the generated parts of docs/api.md
"""
