"""Run the command as ``python -m spikeloss_xp``."""

import sys

from spikeloss_xp.cli import main

if __name__ == "__main__":
    sys.exit(main())
