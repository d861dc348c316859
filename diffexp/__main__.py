"""`python -m diffexp` is `diffexp`."""

import sys

from diffexp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
