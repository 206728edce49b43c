"""``python -m lit_meta`` is the command ``lit-meta``."""

import sys

from lit_meta.cli import main

sys.exit(main())
