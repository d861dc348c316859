"""`python -m diffexp` is `diffexp`."""

import sys

from diffexp.apps.main import main

if __name__ == "__main__":
    sys.exit(main())
