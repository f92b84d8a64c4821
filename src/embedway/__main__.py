"""`python -m embedway` is `embedway`."""

from embedway.cli import main

if __name__ == "__main__":
    main()
