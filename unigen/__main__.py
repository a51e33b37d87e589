# SPDX-License-Identifier: Apache-2.0
"""`python -m unigen` is the command `unigen`."""

import sys

from unigen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
