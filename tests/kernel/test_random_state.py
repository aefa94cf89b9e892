"""Every sample begins with the same random state: no verdict is a matter of luck."""

from __future__ import annotations

import pytest

DRAWS = {
    "random": "import random\ndef f():\n    return [random.random() for _ in range(3)]",
    "numpy": "import numpy\ndef f():\n    return numpy.random.rand(3).tolist()",
    "numpy.random": "from numpy.random import rand\ndef f():\n    return rand(3).tolist()",
}


@pytest.mark.parametrize("source", DRAWS.values(), ids=DRAWS)
def test_samples_draw_the_same_numbers_whatever_was_drawn_before(this_user, source):
    wanted = {"source": source, "entry_point": "f"}
    runs = [run for _ in range(2) for run in this_user.run(wanted, wanted)["runs"]]
    assert len({tuple(run["answers"][0]) for run in runs}) == 1
