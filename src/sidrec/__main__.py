"""The command as a module: `python -m sidrec …`, and `torchrun … -m sidrec …`."""

import sys

from sidrec.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
