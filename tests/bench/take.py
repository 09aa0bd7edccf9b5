"""Takes the body under a URL a number of times on one connection and prints MiB/s: take.py PORT PATH AUTHORIZATION-HEADER TIMES

The bytes are thrown away in the kernel (MSG_TRUNC of tcp(7)), so that the proxy and not this client is what is measured.
"""

import socket
import sys
import time

port, path, header, times = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
connection = socket.create_connection(("127.0.0.1", port))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
sink = bytearray(4 << 20)
taken = 0
begin = time.monotonic()
for _ in range(times):
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{header}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(4096)
        if not part:
            sys.exit("the connection ended in the headers")
        head += part
    head, _, start = head.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    if not lines[0].startswith("http/1.1 200"):
        sys.exit(f"answered {lines[0]}")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    rest = length - len(start)
    while rest:
        count = connection.recv_into(sink, min(rest, len(sink)), socket.MSG_TRUNC)
        if not count:
            sys.exit(f"the connection ended {rest} bytes early")
        rest -= count
    taken += length
print(f"{taken / (1 << 20) / (time.monotonic() - begin):.1f}")
