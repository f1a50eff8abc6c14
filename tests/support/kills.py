"""A process that ends at a call of its own to the operating system, as by kill -9.

The moment is a count of calls, not a time, so that it is the same on every machine.
"""

import os
import signal
import sys
import threading

_CALLS = {
    "close", "fsync", "link", "mkdir", "open", "pwrite", "remove", "rename", "replace", "rmdir",
    "truncate", "unlink", "write",
}  # fmt: skip


class _Calls:
    def __init__(self, last):
        self.count, self.last = 0, last

    def __call__(self, frame, event, function):
        if event == "c_call" and function.__name__ in _CALLS:
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(number):
    """Let this process, and what threads it starts, end at so many calls from here.

    One that never makes them ends after two minutes, by another signal.
    """
    signal.alarm(120)
    calls = _Calls(number)
    threading.setprofile(calls)
    sys.setprofile(calls)


def calls_of(function):
    """Return how many such calls a function makes in this thread and those it starts."""
    calls = _Calls(None)
    threading.setprofile(calls)
    sys.setprofile(calls)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return calls.count


def killed_at(number, work):
    """Work in a child that ends at so many calls, if not before; return what it told last.

    `work` is called with a function that tells a number to this process.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            die_at_call(number)
            work(lambda told: os.write(write, bytes([told])) and None)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return told[-1] if told else 0
