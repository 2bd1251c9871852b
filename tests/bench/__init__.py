"""`make bench`: the product against the bare container engine, on one machine, in one run."""
