"""A stand-in for a zygote, for tests of ``runner.run`` with real pipes and a real process."""

from __future__ import annotations

import os
import subprocess
import sys


class OneProcess:
    """Starts an interpreter that runs a program, told by ``sys.argv[1]`` where its answers go. ``go_on`` lets it read
    the end of its standard input."""

    def __init__(self, program: str) -> None:
        self._program = program

    def fork(self, _payloads: tuple[bytes, ...], answers: int, stdout: int, _stderr: int) -> list[int]:
        command = [sys.executable, "-I", "-S", "-c", self._program, str(answers)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, pass_fds=(answers,))
        return [self.process.pid]

    def go_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    def wait(self, pid: int) -> tuple[int, float, int]:
        self.go_on()
        _, status, usage = os.wait4(pid, 0)
        self.process.returncode = status
        return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss
