"""Set the product up on one machine and run it there: what `make run` and `make test` do.

Standard library only, because it runs before anything is installed. The exceptions run later,
inside the virtual environment: prepare.py and control_image.py.
"""
