"""Runs one command and writes what it cost, as JSON:  launch.py RESULT TIMEOUT LOG COMMAND...

A process of its own because a child starts with its parent's peak memory on its account: this parent is small.
Standard input must be a pipe from the process that starts this one: when that ends, the command is stopped.
Peak memory is that of the largest single process among the command and what it waited for.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time


def main() -> None:
    result, timeout, log, *command = sys.argv[1:]
    killed = threading.Event()
    with open(log, "ab") as stream:  # noqa: PTH123 (as few imports as can be)
        started = time.monotonic()
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            stream.write(f"{command[0]}: {error}\n".encode())
            sys.exit(1)

        def stop() -> None:
            killed.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

        timer = threading.Timer(float(timeout), stop)
        timer.daemon = True
        timer.start()

        def follow() -> None:
            sys.stdin.buffer.read()  # ends when the process that started this one does, however it ends
            stop()

        threading.Thread(target=follow, daemon=True).start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
        timer.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    with open(result, "w") as stream:  # noqa: PTH123
        json.dump(
            {
                "wall_seconds": wall,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "peak_bytes": usage.ru_maxrss * 1024,
                "status": child.returncode,
                "timed_out": killed.is_set(),
            },
            stream,
        )
    os._exit(0)  # a thread still waits for standard input


main()
