#!/usr/bin/env python3
"""Feed garbage to TCP ports on this machine for a while: random bytes, cut frames, huge
lengths, silent and half-open connections.  Usage: garbage.py SECONDS PORT...
Status 1: nobody was there, at one of the ports."""
import random
import socket
import struct
import sys
import time

def attack(port, rnd, held, reached):
    s = socket.socket()
    s.settimeout(0.2)
    try:
        s.connect(("127.0.0.1", port))
        reached.add(port)
        kind = rnd.randrange(7)
        if kind == 0:
            s.sendall(rnd.randbytes(rnd.randrange(1, 5000)))
        elif kind == 1:        # a frame head with huge lengths
            s.sendall(b"FSD1" + struct.pack("<IIIQHBBI", rnd.getrandbits(32), 0xffffffff,
                                            0xffffffff, 1, 0x0301, 4, 0, 0))
        elif kind == 2:        # right magic, cut
            s.sendall(b"FSD1" + rnd.randbytes(rnd.randrange(0, 27)))
        elif kind == 3:        # silent: held open
            held.append(s)
            s = None
        elif kind == 4:        # half-open
            s.sendall(b"FSD1")
            s.shutdown(socket.SHUT_WR)
            held.append(s)
            s = None
        elif kind == 5:        # what a browser says
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        else:                  # many well-formed looking hello frames
            for k in range(1, 4):
                s.sendall(b"FSD1" + struct.pack("<IIIQHBBI", rnd.getrandbits(32), 96, 0,
                                                0, 0, k, 0, 0) + rnd.randbytes(96))
        if s is not None and rnd.random() < 0.5:
            s.recv(4096)
    except OSError:
        pass
    finally:
        if s is not None:
            s.close()
    while len(held) > 200:
        held.pop(0).close()

def main():
    end = time.monotonic() + float(sys.argv[1])
    ports = [int(p) for p in sys.argv[2:]]
    rnd, held, reached, n = random.Random(1), [], set(), 0
    while time.monotonic() < end:
        attack(rnd.choice(ports), rnd, held, reached)
        n += 1
        time.sleep(0.002)
    print("%d connections" % n)
    for port in sorted(set(ports) - reached):
        print("nobody at port", port)
    return 0 if ports and reached == set(ports) else 1

sys.exit(main())
