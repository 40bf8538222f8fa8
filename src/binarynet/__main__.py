"""``python -m binarynet`` is the command ``binarynet``."""

from binarynet.cli.app import main

if __name__ == "__main__":
    main()
