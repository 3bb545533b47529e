"""A command in the foreground of this terminal, and the signals that come meanwhile.

The child stays in our process group, so that the terminal is its own. What the terminal sends (Ctrl-C, a change of its
size) reaches the whole group: that is not passed on a second time. What another process sends reaches us alone, and
is. Both are told apart by `si_code` (sigaction(2)): positive where the kernel is the sender. Job control is left to
its defaults: Ctrl-Z stops the two of us, `fg` lets both go on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as shells have it
BY_SIGNAL = 128
PASSED_ON = frozenset(
    (
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGWINCH,
        signal.SIGUSR1,
        signal.SIGUSR2,
    )
)


def run(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a command to its end. Returns its exit status as shells report it: 128 + N where signal N ended it."""
    waited = PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    try:
        process = subprocess.Popen(  # noqa: S603 - what the user asked for
            command,
            env=env,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),  # noqa: PLW1509 - one thread
        )
    except OSError as error:
        print(f"tollgate: {command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    else:
        while process.poll() is None:
            news = signal.sigwaitinfo(waited)
            if news.si_signo != signal.SIGCHLD and news.si_code <= 0:
                process.send_signal(news.si_signo)
        code = process.returncode
        return code if code >= 0 else BY_SIGNAL - code
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
