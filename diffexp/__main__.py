"""`python -m diffexp` is `diffexp`."""

import sys

from diffexp.apps.main import main

sys.exit(main())
