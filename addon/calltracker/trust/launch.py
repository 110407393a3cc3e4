"""Running a program in the foreground as if it had been started directly: streams, signals and exit status
pass through.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as shells have it


class LaunchError(Exception):
    """The program cannot be started; `status` is what a shell would exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def become(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Replace this process by the program; nothing can be more transparent. Returns (its exit status) on
    Windows only.

    Raises LaunchError.
    """
    if os.name == "nt":
        return attend(command, environ, lambda: None)
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores these, which a program would inherit
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], list(command), dict(environ))
    except OSError as error:
        raise _launch_error(command[0], error) from error


def attend(
    command: Sequence[str], environ: Mapping[str, str], on_other_child: Callable[[], None], keep_open: int = -1
) -> int:
    """Run the program, pass on the signals that this process gets, and return its exit status (128 + n for
    signal n).

    From the program's end on, those signals are ignored: what is left to do is bounded. on_other_child is
    called whenever another child process of this one may have ended; the descriptor keep_open is inherited by
    the program. Raises LaunchError.
    """
    if os.name == "nt":
        return _attend_on_windows(command, environ)
    watched = _watched()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        if keep_open >= 0:
            os.set_inheritable(keep_open, True)
        try:
            pid = os.posix_spawnp(
                command[0],
                list(command),
                dict(environ),
                setsigmask=before,
                setsigdef=[s for s in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)) if s],
            )
        except OSError as error:
            raise _launch_error(command[0], error) from error
        while True:
            number, by_terminal = _next(watched)
            if number == signal.SIGCHLD:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                on_other_child()
            elif not by_terminal:  # the terminal signals all of its foreground processes, the program among them
                os.kill(pid, number)
    finally:
        for each in watched - {signal.SIGCHLD}:
            signal.signal(each, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watched() -> set[signal.Signals]:
    """All signals that can be passed on; those that stop and continue act on this process as on the program."""
    names = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGWINCH", "SIGCHLD")
    return {getattr(signal, name) for name in names}


def _next(watched: set[signal.Signals]) -> tuple[int, bool]:
    """The next signal, and whether the terminal sent it."""
    if sys.platform == "linux":
        information = signal.sigwaitinfo(watched)
        return information.si_signo, information.si_code == 0x80  # SI_KERNEL
    number = signal.sigwait(watched)
    return number, number in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH) and _in_foreground()


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _attend_on_windows(command: Sequence[str], environ: Mapping[str, str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the console sends Ctrl-C to the program as well
    try:
        return subprocess.run(list(command), env=dict(environ), check=False).returncode
    except OSError as error:
        raise _launch_error(command[0], error) from error


def _launch_error(program: str, error: OSError) -> LaunchError:
    if isinstance(error, FileNotFoundError):
        return LaunchError(f"{program}: command not found", NOT_FOUND)
    return LaunchError(f"{program}: cannot be run ({error.strerror})", NOT_EXECUTABLE)
