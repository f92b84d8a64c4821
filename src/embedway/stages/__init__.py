"""The steps of a request, one file each; `engine.py` calls them in order."""
