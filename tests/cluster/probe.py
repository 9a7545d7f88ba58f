#!/usr/bin/env python3
"""What an application sees of failures.

probe.py run DIR LOG NAMES    small fsync'ed writes, direct reads, and creates, renames and
                              unlinks in DIR, each in a loop of its own, until SIGTERM; every
                              operation is a line in LOG, every name and write that was
                              acknowledged in NAMES
probe.py pause LOG FROM [TO]  the longest that any of the three was without a finished
                              operation between the times (ms), and the errors there
probe.py resumed LOG FROM [S] status 0: all three have finished operations begun after FROM;
                              waits for that until S seconds after FROM
probe.py check DIR NAMES      names that were acknowledged are there, unlinked ones are not,
                              and so is what was written
"""
import os
import signal
import sys
import threading
import time

FILES = 8
PAUSE = float(os.environ.get("PPAUSE", "0.01"))     # s between operations
SLOT, SLOTS = 64, 1024
KINDS = ("write", "read", "names")

def now():
    return int(time.time() * 1000)

class Log:
    def __init__(self, path):
        self.f = open(path, "a", buffering=1)
        self.lock = threading.Lock()

    def put(self, text):
        with self.lock:
            self.f.write(text + "\n")

stop = threading.Event()

def loop(kind, step, log):
    n = 0
    while not stop.is_set():
        n += 1
        begun, rc = now(), "ok"
        try:
            step(n)
        except OSError as e:
            rc = os.strerror(e.errno).replace(" ", "_")
            stop.wait(0.05)
        log.put("%s %d %d %s" % (kind, begun, now(), rc))
        stop.wait(PAUSE)

def run(where, path, names_path):
    log, names = Log(path), Log(names_path)
    os.makedirs(where, exist_ok=True)
    for i in range(FILES):
        with open(os.path.join(where, "r%d" % i), "wb") as f:
            f.write(bytes([i]) * 65536)
            f.flush()
            os.fsync(f.fileno())

    def write(n):
        fd = os.open(os.path.join(where, "w%d" % (n % FILES)), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, b"%063d\n" % n, n // FILES % SLOTS * SLOT)
            os.fsync(fd)
        finally:
            os.close(fd)
        names.put("wrote %d" % n)

    import mmap
    page = mmap.mmap(-1, 4096)

    def read(n):
        fd = os.open(os.path.join(where, "r%d" % (n % FILES)), os.O_RDONLY | os.O_DIRECT)
        try:
            got = os.preadv(fd, [page], n % 16 * 4096)
            if got != 4096 or page[:] != bytes([n % FILES]) * 4096:
                raise OSError(74, "wrong bytes")
        finally:
            os.close(fd)

    pid = os.getpid()
    old = []

    def mix(n):
        name = "n%d-%d" % (pid, n)
        at = os.path.join(where, name)
        os.close(os.open(at, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
        if n % 3 == 0:
            os.rename(at, at + "x")
            name += "x"
        names.put("made %s" % name)
        old.append(name)
        if len(old) > 50:
            gone = old.pop(n % 50)
            names.put("going %s" % gone)
            os.unlink(os.path.join(where, gone))
            names.put("gone %s" % gone)

    signal.signal(signal.SIGTERM, lambda *a: stop.set())
    threads = [threading.Thread(target=loop, args=(k, s, log), daemon=True)
               for k, s in zip(KINDS, (write, read, mix))]
    for t in threads:
        t.start()
    while not stop.is_set():
        time.sleep(0.1)
    for t in threads:
        t.join(20)

def parsed(f):
    for line in f:
        w = line.split()
        if line.endswith("\n") and len(w) == 4:
            yield w[0], int(w[1]), int(w[2]), w[3]

def lines(path):
    with open(path) as f:
        yield from parsed(f)

def pause(path, start, end):
    worst, errors = {}, {}
    last = {k: start for k in KINDS}
    for kind, begun, ended, rc in lines(path):
        if ended < start:
            continue
        if rc != "ok":
            if begun <= end:
                errors[rc] = errors.get(rc, 0) + 1
            continue
        if last[kind] <= end:
            worst[kind] = max(worst.get(kind, 0), ended - last[kind])
        last[kind] = max(last[kind], ended)
    for k in KINDS:         # one that never came back
        if last[k] < end:
            worst[k] = max(worst.get(k, 0), end - last[k])
    print("%.2f %s %s" % (max(worst.values()) / 1000,
          ",".join("%s:%.2f" % (k, worst[k] / 1000) for k in KINDS),
          ",".join("%s:%d" % e for e in sorted(errors.items())) or "none"))

def resumed(path, start, seconds):
    got = {k: 0 for k in KINDS}
    with open(path) as f:
        while True:
            for kind, begun, _, rc in parsed(f):
                if begun >= start and rc == "ok":
                    got[kind] += 1
            if all(n >= 2 * FILES for n in got.values()):
                return 0
            if now() >= start + 1000 * seconds:
                return 1
            time.sleep(0.1)

def noted(path):
    state, wrote = {}, {}
    with open(path) as f:
        for line in f:
            if line.endswith("\n"):
                what, name = line.split()
                if what == "wrote":
                    n = int(name)
                    wrote[n % FILES, n // FILES % SLOTS] = n
                else:
                    state[name] = what
    return state, wrote

def check(where, path):
    state, wrote = noted(path)
    there, bad = set(os.listdir(where)), 0
    later = noted(path)[0]      # programs may be going on
    for name, what in sorted(state.items()):
        if what == "made" and name not in there and later[name] == "made":
            print("lost", name)
            bad += 1
        if what == "gone" and name in there:
            print("came back", name)
            bad += 1
    files = {}
    for (k, slot), n in sorted(wrote.items()):
        if k not in files:
            with open(os.path.join(where, "w%d" % k), "rb") as f:
                files[k] = f.read()
        got = files[k][slot * SLOT:(slot + 1) * SLOT]
        # what was under way when programs ended may have replaced it
        if not got.strip().isdigit() or int(got) < n or (int(got) - n) % (FILES * SLOTS):
            print("wrong: file %d slot %d is %r, not %d" % (k, slot, got, n))
            bad += 1
    print("%d names, %d writes, %d bad" % (len(state), len(wrote), bad))
    return 1 if bad else 0

if sys.argv[1] == "run":
    run(*sys.argv[2:5])
elif sys.argv[1] == "pause":
    pause(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else now())
elif sys.argv[1] == "resumed":
    sys.exit(resumed(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0))
else:
    sys.exit(check(*sys.argv[2:4]))
