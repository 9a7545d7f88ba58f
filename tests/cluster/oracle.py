#!/usr/bin/env python3
"""Outside oracle for crash tests.

oracle.py write MOUNT ACKED SEED [PAUSE]
                                   fsync'ed writes, renames, directories and removals from four
                                   threads, PAUSE s between any two, until the mount dies; each
                                   that was acknowledged is noted in the file ACKED
oracle.py check MOUNT ACKED        everything noted is there: a file holds, at each slot, the
                                   last acknowledged content or a later one of the same writer,
                                   and what was removed is gone
"""
import concurrent.futures
import os
import random
import struct
import sys
import threading
import time
import zlib

SLOT = 8192
KEEP = 500      # names of a thread; beyond that it removes some

def content(name, slot, n):
    head = struct.pack("<QQI", n, slot, zlib.crc32(name.encode()))
    body = head * (SLOT // len(head) + 1)
    return body[:SLOT - 4] + struct.pack("<I", zlib.crc32(body[:SLOT - 4]))

def writer(mount, note, seed, t, pause):
    rnd = random.Random(seed * 100 + t)
    n = seed * 1000000
    mine = []
    try:
        while True:
            n += 1
            time.sleep(pause)
            if len(mine) > KEEP:
                name = mine.pop(rnd.randrange(len(mine)))
                note("going %s" % name)
                (os.rmdir if name[0] == "d" else os.unlink)(os.path.join(mount, name))
                note("gone %s" % name)
            kind = rnd.randrange(4)
            if kind < 2:       # overwrite a slot of a long-lived file
                name = "f%d" % t
                slot = rnd.randrange(400)
                fd = os.open(os.path.join(mount, name), os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    os.pwrite(fd, content(name, slot, n), slot * SLOT)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                note("slot %s %d %d" % (name, slot, n))
            elif kind == 2:    # a new file, renamed into place
                name = "n%d-%d" % (t, n)
                tmp = os.path.join(mount, "tmp%d" % t)
                fd = os.open(tmp, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    os.write(fd, content(name, 0, n))
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.rename(tmp, os.path.join(mount, name))
                note("slot %s %d %d" % (name, 0, n))
                mine.append(name)
            else:
                name = "d%d-%d" % (t, n)
                os.mkdir(os.path.join(mount, name))
                note("dir %s" % name)
                mine.append(name)
    except OSError as e:
        print("writer %d ends: %s" % (t, e))

def write(mount, path, seed, pause):
    lock = threading.Lock()
    with open(path, "a") as acked:
        def note(text):
            with lock:
                acked.write(text + "\n")
                acked.flush()

        ts = [threading.Thread(target=writer, args=(mount, note, seed, t, pause))
              for t in range(4)]
        for t in ts:
            t.start()
        for t in ts:
            t.join()

def wrong(mount, name, slots):
    found = []
    try:
        fd = os.open(os.path.join(mount, name), os.O_RDONLY)
    except OSError as e:
        return ["lost %s %d %s" % (name, slot, e) for slot, _ in slots]
    try:
        for slot, want in slots:
            try:
                data = os.pread(fd, SLOT, slot * SLOT)
            except OSError as e:
                found.append("lost %s %d %s" % (name, slot, e))
                continue
            got = struct.unpack("<Q", data[:8])[0] if len(data) == SLOT else -1
            if got < want or data != content(name, slot, got):
                found.append("wrong %s %d want %d got %d" % (name, slot, want, got))
    finally:
        os.close(fd)
    return found

def check(mount, path):
    slots, dirs, gone, bad, n = {}, set(), {}, 0, 0
    for line in open(path):
        if not line.endswith("\n"):
            continue
        w = line.split()
        if w[0] == "dir":
            dirs.add(w[1])
        elif w[0] == "slot":
            slots[(w[1], int(w[2]))] = int(w[3])
        else:           # going: nobody knows; gone: is not there
            gone[w[1]] = w[0] == "gone"
            dirs.discard(w[1])
            slots.pop((w[1], 0), None)
    there = set(os.listdir(mount))
    for name in sorted(dirs):
        n += 1
        if not os.path.isdir(os.path.join(mount, name)):
            print("lost directory", name)
            bad += 1
    for name in sorted(gone):
        n += 1
        if gone[name] and name in there:
            print("came back", name)
            bad += 1
    files = {}
    for (name, slot), want in sorted(slots.items()):
        files.setdefault(name, []).append((slot, want))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda name: wrong(mount, name, files[name]), sorted(files)):
            bad += len(found)
            for text in found:
                print(text)
    n += len(slots)
    print("%d acknowledged, %d bad" % (n, bad))
    return 1 if bad else 0

if sys.argv[1] == "write":
    write(sys.argv[2], sys.argv[3], int(sys.argv[4]),
          float(sys.argv[5]) if len(sys.argv) > 5 else 0)
else:
    sys.exit(check(sys.argv[2], sys.argv[3]))
