"""The checks, by what they judge. Each is a function from a server to a verdict; `table.py` lists them."""
