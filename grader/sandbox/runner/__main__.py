"""``python /runner [PROC]``: the supervisor of a cell. PROC is an inherited descriptor of procfs.

Without it, this is the first process of a container engine's container, which is then made fit for samples. With
``uids`` in its place, samples are parted by user ids, for hosts that forbid user namespaces.
"""

import os
import sys

if (
    __name__ == "__main__" and __package__ == ""
):  # started as a folder: make it the package that its modules expect
    sys.path[0] = "/"
    __package__ = "runner"

# As the cell has it.
from runner import container  # type: ignore[import-not-found]
from runner.supervisor import main  # type: ignore[import-not-found]

os.environ.pop("LD_BIND_NOW", None)  # it was for this interpreter's start

if sys.argv[1:] == [container.UIDS]:
    main(container.enter_as_is(), by_user=True)
else:
    main(int(sys.argv[1]) if len(sys.argv) > 1 else container.enter())
