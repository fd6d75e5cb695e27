"""What tests do to the programs that they start."""

from __future__ import annotations

import signal


def hears_ctrl_c() -> None:
    """Let a child hear Ctrl-C, which what runs in a shell's background does not: for `preexec_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
