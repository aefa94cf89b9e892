"""``python /runner PROC``: the supervisor of a cell. PROC is an inherited descriptor of procfs, or absent."""

import os
import sys

if __package__ == "":  # started as a folder: make it the package that its modules expect
    sys.path[0] = "/"
    __package__ = "runner"

from runner.supervisor import main  # type: ignore[import-not-found]  # as the cell has it

main(int(sys.argv[1]) if len(sys.argv) > 1 else os.open("/proc", os.O_PATH))
