"""What the command prints if the user interrupts it while Python imports the library."""

import os
import sys
from typing import Any

INTERRUPTED = "spikeloss-xp: interrupted\n"


def show_in_one_line() -> None:
    """Print no traceback if the command is interrupted while Python imports the library.

    The package calls this first. It changes nothing in a process that runs something else.
    """
    script, *_ = getattr(sys, "argv", None) or [""]
    as_module = script == "-m" and "spikeloss_xp" in sys.orig_argv
    if as_module or os.path.basename(script).partition(".")[0] == "spikeloss-xp":
        before = sys.excepthook

        def show(kind: type[BaseException], *error: Any) -> None:
            if issubclass(kind, KeyboardInterrupt):
                sys.stderr.write(INTERRUPTED)
            else:
                before(kind, *error)

        sys.excepthook = show
