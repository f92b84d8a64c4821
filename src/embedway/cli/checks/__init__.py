"""Checks of `embedway doctor`. Each file has the checks of one concept; `registry.py` lists and runs all of them."""
