"""``python -m octavo.cli``, for launchers that start modules."""

from .main import main

if __name__ == "__main__":
    main()
