"""Write to the answer channel, descriptor 3, oneself (items 19-24, 96). ``docs/answer-encoding.md`` has the format."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.model import COMPILE, OUTPUT, RUNTIME, TIME, VIOLATION, WRONG, Collection, calling

ATTACKS = Collection()
_add = ATTACKS.add

TOOLS = """
import hashlib, marshal, os, struct, threading, time
def frame(kind, payload=b""):
    return struct.pack("<IB", len(payload), ord(kind)) + payload
def say(*frames):
    data = memoryview(b"".join(frames))
    while data:
        data = data[os.write(3, data):]
def value(answer):
    return frame("V", marshal.dumps(answer, 2))
def text(content):
    return b"u" + struct.pack("<I", len(content)) + content
def foreign(kind, payload):
    return frame("V", b"Q" + bytes([len(kind)]) + kind.encode() + marshal.dumps(payload, 2))
"""


def _forge(
    name: str, why: str, statements: str, *statuses: object, task: str = "int", steps: int = 2
) -> None:
    _add(f"forged-{name}", (19, 24, 96), why, calling(statements, TOOLS), *statuses, task=task, steps=steps)  # type: ignore[arg-type]


_forge("value", "A guess is a wrong answer, whoever writes it.", "say(value(1))", WRONG)
_forge(
    "values-and-end",
    "All answers guessed, and an end.",
    "say(*[value(1)] * 6, frame('Z')); os._exit(0)",
    WRONG,
)
_forge("finished-early", "An end before the answers.", "say(frame('Z')); os._exit(0)", VIOLATION)
_forge(
    "finished-with-times", "An end with forged times.", "say(frame('Z', b'x' * 48)); os._exit(0)", VIOLATION
)
_forge("loaded-again", "The program was loaded already.", "say(frame('L'))", VIOLATION)
_forge("unknown-kind", "No such frame.", "say(frame('?', b'passed'))", VIOLATION)
_forge(
    "supervisor-done",
    "A frame that only the supervisor sends.",
    "say(frame('O', b'{\"ended\": \"exited\"}'))",
    VIOLATION,
)
_forge("uncompilable-late", "It has compiled already.", "say(frame('C'))", VIOLATION)
_forge("oversized", "A length of 4 GB.", "say(struct.pack('<IB', 0xffffffff, ord('V')))", VIOLATION)
_forge("oversized-error", "An error of 1 MB.", "say(frame('X', b'u' * 1000000))", VIOLATION)
_forge(
    "partial-and-exit", "Half a frame.", "say(struct.pack('<IB', 100, ord('V')) + b'i'); os._exit(0)", RUNTIME
)
_forge("partial-and-sleep", "Half a frame, and nothing.", "say(b'\\x05'); time.sleep(60)", TIME)
_forge(
    "partial-header", "Half a header swallows the next frame.", "say(b'\\x01\\0')", WRONG, RUNTIME, VIOLATION
)
_forge("close-channel", "The channel closed.", "os.close(3); time.sleep(60)", RUNTIME)
_forge("close-channel-and-ptrace", "What it does then is judged, whenever the supervisor looks.",
       "os.close(3); __import__('ctypes').CDLL(None).syscall(101, 0, 0, 0, 0)", VIOLATION)  # fmt: skip
_forge(
    "replace-channel", "Another file in the channel's place.", "os.dup2(os.open('/dev/null', 1), 3)", RUNTIME
)
_forge("non-blocking-channel", "Our writes then fail half-way.",
       "os.set_blocking(3, False); say(value('x' * 30000))", WRONG, RUNTIME)  # fmt: skip
_forge("raised", "An exception that nobody raised.",
       "say(frame('X', marshal.dumps(('ValueError', 'x', 1), 2))); time.sleep(60)", RUNTIME)  # fmt: skip
_forge(
    "raised-text",
    "Its words, longer than the runner lets them be, and with control sequences.",
    "say(frame('X', marshal.dumps(('\\x1b[2J' + 'T' * 500, '\\x1b]0;title\\x07' * 100, 1), 2))); os._exit(0)",
    RUNTIME,
)
_forge(
    "raised-junk",
    "An exception that is no exception.",
    "say(frame('X', b'\\xff' * 100)); os._exit(0)",
    RUNTIME,
)
_forge("duplicate", "Two answers for a test.", "say(value(arguments[0] * 7919 + 104729), value(1))", WRONG)
_forge("digest-unasked", "A digest in place of a short answer.", "say(frame('D', struct.pack('<Q32s', 5, b'x' * 32)))",
       WRONG, VIOLATION)  # fmt: skip
_forge("digest-short", "A digest that is none.", "say(frame('D', b'x')); os._exit(0)", WRONG, VIOLATION)
_forge("digest-forged", "A digest of nothing known.",
       "say(*[frame('D', struct.pack('<Q32s', 100001, b'x' * 32))] * 3, frame('Z')); os._exit(0)",
       WRONG, VIOLATION, task="long", steps=5)  # fmt: skip
_forge("digest-in-float-task", "Each would be looked at again.",
       "say(*[frame('D', struct.pack('<Q32s', 100001, b'x' * 32))] * 6, frame('Z')); os._exit(0)",
       WRONG, VIOLATION, task="float", steps=5)  # fmt: skip
_forge(
    "value-for-digest",
    "The full answer where a digest is due.",
    "say(value([1] * 100000))",
    VIOLATION,
    task="long",
    steps=5,
)
_forge("random", "Noise.", "say(bytes(range(256)) * 100)", VIOLATION, WRONG, RUNTIME)
_forge("empty-frames", "Four million frames of nothing.",
       "chunk = bytes(5) * 50000\nwhile True: say(chunk)", VIOLATION)  # fmt: skip
_forge(
    "flood-of-answers", "More answers than tests.", "chunk = value(1) * 5000\nwhile True: say(chunk)", WRONG
)
_forge("slow", "It says that it was slow, and goes on: nothing comes of it.", "say(frame('W'))", WRONG)
_SLOW = (
    TOOLS
    + """
import fcntl
def wait_until_read():
    while fcntl.ioctl(3, 0x541B, bytes(4)) != bytes(4): time.sleep(0.001)
"""
)
# When each of these is read, together with what or how late, must decide nothing.
_SLOW_FRAMES = {
    "alone": "wait_until_read(); say(frame('W')); wait_until_read()",
    "alone-and-late": "time.sleep(0.05); say(frame('W')); time.sleep(0.05)",
    "before-its-answer": "say(frame('W') + value(arguments[0] * 7919 + 104729))",
    "in-pieces": "say(bytes(3)); time.sleep(0.05); say(b'\\0W'); time.sleep(0.05)",
    "behind-an-answer": "say(value(arguments[0] * 7919 + 104729) + frame('W'))",
}
_SLOW_TWICE = {
    "at-once": "say(frame('W') * 2)",
    "each-alone": "say(frame('W')); wait_until_read(); say(frame('W')); wait_until_read()",
    "with-a-payload": "say(frame('W', b'x')); wait_until_read()",
    "behind-all-answers": "say(*[value(n * 7919 + 104729) for n in (3, -4, 11, 2, 5, 90)]); wait_until_read(); say(frame('W')); wait_until_read()",
}
for _said, _why, _status in (
    (_SLOW_FRAMES, "One for a test is as if it had not been said, whenever it is read.", WRONG),
    (_SLOW_TWICE, "The runner says it once for a test, and nothing with it.", VIOLATION),
):
    for _name, _statements in _said.items():
        _add(f"slow-{_name}", (19, 24), _why, calling(_statements, _SLOW), _status)
_forge(
    "slow-flood",
    "It was slow ten million times.",
    "chunk = frame('W') * 50000\nwhile True: say(chunk)",
    VIOLATION,
)
_forge("slow-again-and-again", "Whenever the supervisor has read that it was slow, it is so again.", """
    import fcntl
    while True:
        while fcntl.ioctl(3, 0x541B, bytes(4)) != bytes(4): pass
        say(frame('W'))
    """, VIOLATION)  # fmt: skip
_add("slow-at-load", (19, 24), "It was slow before it was loaded.",
     TOOLS + "while True: say(frame('W')); time.sleep(0.01)", VIOLATION)  # fmt: skip
_forge("flood-in-one-frame", "One answer that never ends.",
       "say(struct.pack('<IB', 15 << 20, ord('V')))\nwhile True: say(b'N' * 65536)", WRONG, OUTPUT, VIOLATION)  # fmt: skip
_add("flood-at-load", (19, 96), "The same before the program is loaded.",
     TOOLS + "while True: say(bytes(5) * 50000)", VIOLATION)  # fmt: skip
_add("frames-at-load", (19, 24), "All frames of a run, written by the top level; the answers are guesses.",
     TOOLS + "say(frame('L'), *[value(1)] * 6, frame('Z')); os._exit(0)", WRONG)  # fmt: skip
_add("broken-tests-at-load", (19, 24), "Only a driver may say that the tests are at fault.",
     TOOLS + "say(frame('B', marshal.dumps(('NameError', 'the tests', 1), 2))); os._exit(0)", VIOLATION)  # fmt: skip
_add("uncompilable-at-load", (19,), "Forged, and believed: it is not a pass.",
     TOOLS + "say(frame('C', marshal.dumps(('SyntaxError', 'x', 1), 2))); os._exit(0)", COMPILE)  # fmt: skip
_add("stdio-frames", (19, 96), "A whole program has a channel for its error only.",
     TOOLS + "print(7); say(frame('L'), frame('V', b'T'), frame('Z'))", WRONG, RUNTIME, VIOLATION, task="stdio")  # fmt: skip
_add("stdio-frame-flood", (19, 48, 96), "Millions of frames that nobody asked for must not fill the worker.",
     TOOLS + "while True: say(bytes(5) * 50000)", VIOLATION, task="stdio")  # fmt: skip
_add("stdio-frames-and-exit", (19, 24, 96), "Right, but for what it writes there; it ends before it can be stopped.",
     TOOLS + "print(sum(map(int, input().split())), flush=True); say(bytes(5) * 2000); os._exit(0)", VIOLATION,
     task="stdio")  # fmt: skip
_add("writer-thread", (21, 24), "A thread writes over the honest loop's frames.", TOOLS + """
def write():
    while True:
        try: say(value(1))
        except BaseException: pass
def solve(n):
    threading.Thread(target=write, daemon=True).start()
    time.sleep(0.2)
    return 0
""", WRONG, VIOLATION)  # fmt: skip

_RIGHT = "*[value(n * 7919 + 104729) for n in (3, -4, 11, 2, 5, 90)]"
_forge("end-without-end", "All answers right, then ends without end.",
       f"say({_RIGHT})\nwhile True: say(frame('Z') * 50000)", VIOLATION)  # fmt: skip
_forge("new-clock-with-each-end", "Each end would begin a step with a limit of its own.",
       f"say({_RIGHT})\nwhile True: say(frame('Z')); time.sleep(0.3)", VIOLATION)  # fmt: skip
_forge("digest-to-be-asked-again", "A digest of a short answer, to be given a second and longer run for each test.",
       "say(*[frame('D', struct.pack('<Q32s', 5, b'x' * 32))] * 6, frame('Z')); os._exit(0)", VIOLATION)  # fmt: skip

# Encodings of things that have no meaning, or one that is expensive.
_HOSTILE = {
    "nothing": "b''",
    "unknown-tag": "b'z'",
    "reference-tag": "b'r\\0\\0\\0\\0'",
    "code-tag": "b'c' + bytes(100)",
    "long-list": "b'[' + struct.pack('<I', 0xffffffff)",
    "list-of-nothing": "b'[' + struct.pack('<I', 5)",
    "long-text": "b'u' + struct.pack('<I', 0x7fffffff) + b'x'",
    "bad-utf8": "text(b'\\xff\\xfe')",
    "surrogate": "text(b'\\xed\\xa0\\x80')",
    "nul": "text(b'\\0' * 10)",
    "huge-int": "b'l' + struct.pack('<i', 400000) + b'\\x01\\0' * 400000",
    "zero-digits": "b'l' + struct.pack('<i', 2) + bytes(4)",
    "small-long": "b'l' + struct.pack('<i', 1) + b'\\x01\\0'",
    "deep": "b'[\\x01\\0\\0\\0' * 100000 + b'N'",
    "deep-within-bounds": "b'[\\x01\\0\\0\\0' * 499 + b'N'",
    "deep-foreign": "b'Q\\x05deque[\\x01\\0\\0\\0' * 240 + b'N'",
    "many-values": "b'[' + struct.pack('<I', 3000000) + b'N' * 3000000",
    "unhashable-key": "b'{[\\0\\0\\0\\0N0'",
    "same-key-twice": "b'{i\\x01\\0\\0\\0Ni\\x01\\0\\0\\0N0'",
    "key-without-value": "b'{N0'",
    "equal-keys-of-two-types": "b'<\\x02\\0\\0\\0i\\x01\\0\\0\\0T'",
    "nan-key": "b'<\\x01\\0\\0\\0g' + struct.pack('<d', float('nan'))",
    "open-dict": "b'{' * 1000",
    "trailing": "b'NN'",
    "unknown-foreign": "b'Q\\x03xyzN'",
}  # fmt: skip
for _name, _payload in _HOSTILE.items():
    _add(f"hostile-encoding-{_name}", (86, 88, 90, 92, 96), "The decoder is bounded and total.",
         calling(f"say(frame('V', {_payload}))", TOOLS), WRONG, VIOLATION)  # fmt: skip
_FOREIGN = {
    "Fraction": ["(1, 0)", "(1, 10**4000)", "('a', 1)", "()", "(True, 1)"],
    "Decimal": ["'sNaN'", "'1e999999999'", "'nonsense'", "'nan'", "'9' * 5000", "'inf'"],
    "range": ["(0, 10**18, 1)", "(0, 1, 0)", "(0, 10**5000, 1)", "('a',)", "(0, 1999999, 1)"],
    "numpy.array": [
        "('<f8', (10**9, 10**9), [])",
        "('<f8', 5, 5)",
        "()",
        "('<f8', (-1,), [1.0])",
        "(5, (), 1.0)",
    ],
    "numpy.scalar": ["('<f8', [1])", "('O', {})", "()", "(None, None)", "('<f8', float('nan'))"],
    "timedelta": ["(10**30, 0, 0)", "(1.5, 'a', None)", "()"],
    "date": ["'9999-99-99'", "''"],
    "datetime": ["'0001-01-01T00:00:00+23:59'", "'x' * 10000"],
    "time": ["'25:00'"],
    "Counter": ["{'a': 'b'}", "{1: 10**3000}"],
    "OrderedDict": ["{1: 1}"],
    "dict_keys": ["[[]]", "[1, 1]", "list(range(100000))"],
    "dict_items": ["[1]", "[(1,)]", "[([], 1)]", "[(1, 2), (1, 3)]"],
    "iterator": ["[1] * 100000"],
    "namedtuple": ["((),)"],
    "deque": ["[[]] * 1000"],
    "bytearray": ["b'x'"],
    "opaque": ["'int'", "''"],
}
for _kind, _payloads in _FOREIGN.items():
    for _number, _payload in enumerate(_payloads):
        for _task in ("float", "set", "close", "root"):
            _add(f"hostile-{_kind}-{_number}-{_task}", (7, 89, 93, 96), "A forged payload means nothing.",
                 calling(f"say(foreign({_kind!r}, {_payload}))", TOOLS), WRONG, VIOLATION, task=_task)  # fmt: skip
_add("hash-flood", (93,), "Keys whose hashes collide, to cost quadratic time.",
     "def solve(*arguments):\n    return {n * ((1 << 61) - 1) for n in range(3000)}\n", WRONG, task="set")  # fmt: skip
_add("hash-flood-forged", (93,), "More of them than a program could make honestly.",
     calling("items = [marshal.dumps(n * ((1 << 61) - 1), 2) for n in range(60000)]\n"
             "say(frame('V', b'<' + struct.pack('<I', len(items)) + b''.join(items)))", TOOLS), VIOLATION, task="set")  # fmt: skip
_add("hash-flood-list", (93,), "As a list that the judge makes a set of.",
     "def solve(*arguments):\n    return [n * ((1 << 61) - 1) for n in range(60000)]\n", WRONG, task="set", steps=4)  # fmt: skip
_add("hash-flood-tuples", (93,), "Nested tuples with one hash.",
     "def solve(*arguments):\n    return [(n * ((1 << 61) - 1), (0,) * 50) for n in range(30000)]\n", WRONG, task="set",
     steps=4)  # fmt: skip
_add("memory-in-worker", (44, 96), "An answer that is small as bytes and large as values.",
     calling("say(frame('V', b'[' + struct.pack('<I', 1900000) + b'(\\0\\0\\0\\0' * 1900000))", TOOLS), VIOLATION)  # fmt: skip
