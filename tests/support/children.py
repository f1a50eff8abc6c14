"""Functions run in a process of their own, which may crash or hang."""

import faulthandler
import multiprocessing


def in_child(function, *arguments, seconds=60):
    """Return what a function returns in a forked process, which may crash or hang."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def run():
        faulthandler.disable()
        send.send(function(*arguments))

    child = context.Process(target=run)
    child.start()
    send.close()  # so that a crash is heard at once
    answered = receive.poll(seconds)
    try:
        result = receive.recv() if answered else None
    except EOFError:
        result = None
    if not answered:
        child.kill()
    child.join()
    assert answered, "it hangs"
    assert child.exitcode == 0, "it crashed"
    return result
