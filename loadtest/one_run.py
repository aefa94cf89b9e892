"""One run of a function in a cell, without a worker: what benchmarks of cells time."""

from __future__ import annotations

import marshal
import struct

from grader.limits import Limits
from grader.sandbox.cell import Cell, Done
from grader.worker.requests import RunRequest, function_payload, run_limits


def run(cell: Cell, limits: Limits, program: str, argument: int) -> Done:
    """Call the program's function ``f`` once; returns how the run ended, which must be well."""
    given = marshal.dumps([argument])
    payload = function_payload(program, "f", struct.pack("<I", len(given)) + given, stop_at_error=True)
    request = RunRequest((payload,), run_limits(limits, {}), (1,), lambda _: False, limits.memory_bytes)
    cell.start_run(request.encoded(limits, cell.address_space), request.limits, group_sizes=(1,))
    while True:
        for event in cell.receive(60.0):
            if isinstance(event, Done):
                assert (event.ended, event.code) == ("exited", 0), event
                return event
