"""`python -m interpedia`: the same as the `interpedia` command."""

from __future__ import annotations

import sys

from interpedia.cli import main

if __name__ == "__main__":
    sys.exit(main())
