"""What the zygote for programs that import more of the standard library has imported before.

Each of these takes a program longer to import than everything else that is done for it.
"""

import array  # noqa: F401
import contextlib  # noqa: F401
import copy  # noqa: F401
import dataclasses  # noqa: F401
import datetime  # noqa: F401
import decimal  # noqa: F401
import fractions  # noqa: F401
import hashlib  # noqa: F401
import json  # noqa: F401
import statistics  # noqa: F401
