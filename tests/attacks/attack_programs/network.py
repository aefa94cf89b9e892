"""Reach something, or be reached (items 82-85)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.model import RUNTIME, TIME, VIOLATION, WRONG, Collection, calling

ATTACKS = Collection()
_ATTEMPTS = {
    "tcp": "import socket; socket.create_connection(('1.1.1.1', 80), 1)",
    "tcp6": "import socket; socket.create_connection(('2606:4700::1111', 80), 1)",
    "loopback": "import socket; socket.create_connection(('127.0.0.1', 22), 1)",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))",
    "dns": "import socket; socket.getaddrinfo('example.org', 80)",
    "raw": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "packet": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)",
    "vsock": "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).connect((2, 1024))",
    "bluetooth": "import socket; socket.socket(31, socket.SOCK_RAW, 1)",
    "alg": "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "listen": "import socket; s = socket.socket(); s.bind(('0.0.0.0', 8000)); s.listen()",
    "unix-docker": "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "unix-abstract": "import socket; socket.socket(socket.AF_UNIX).connect('\\0/tmp/dbus')",
    "unix-abstract-bind": "import socket; socket.socket(socket.AF_UNIX).bind('\\0left')",
    "metadata": "import urllib.request; urllib.request.urlopen('http://169.254.169.254/latest/meta-data/', timeout=1)",
    "http": "import urllib.request; urllib.request.urlopen('http://example.org/answers', timeout=1)",
    "redis": "import socket; socket.create_connection(('127.0.0.1', 6379), 1)",
    "ray": "import socket; socket.create_connection(('127.0.0.1', 10001), 1)",
    "asyncio": "import asyncio; asyncio.run(asyncio.open_connection('127.0.0.1', 8265))",
    "smtp": "import smtplib; smtplib.SMTP('127.0.0.1', timeout=1)",
    "inherited": "import os, socket\nfor n in range(256):\n    try: socket.socket(fileno=os.dup(n)).getpeername()\n    except OSError: pass\nraise OSError",
    "listener-thread": "import http.server, threading; threading.Thread(target=http.server.HTTPServer(('', 0), None).serve_forever).start()",
}  # fmt: skip
for _name, _statements in _ATTEMPTS.items():
    ATTACKS.add(f"network-{_name}", (82, 83, 84, 85), "No socket of any family but a pair of one's own.",
                calling(_statements), RUNTIME, VIOLATION)  # fmt: skip
ATTACKS.add("network-socketpair-connect", (84,), "A pair of one's own leads nowhere.", calling("""
    import socket
    left, right = socket.socketpair()
    for address in ("/dev/log", "\\0x"):
        try: left.connect(address)
        except OSError: continue
        raise AssertionError
    left2, _ = socket.socketpair(type=socket.SOCK_DGRAM)
    try: left2.sendto(b"x", "\\0grader")
    except OSError: pass
    else: raise AssertionError
    """), WRONG, RUNTIME, TIME)  # fmt: skip
