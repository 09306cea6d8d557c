"""``python -m jacana`` is the command ``jacana``."""

from .cli import main

if __name__ == "__main__":
    main()
