"""Set the product up on one machine and run it there: what `make run` and `make test` do.

Standard library only, because it runs before anything is installed. The one exception is
prepare.py, which runs later, inside the virtual environment.
"""
