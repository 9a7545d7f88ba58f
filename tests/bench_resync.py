#!/usr/bin/env python3
"""Figures of bench_resync.sh.

bench_resync.py copy FROM TO MIB        a plain copy: direct reads, loopback TCP, direct writes and a
                                  sync; prints MiB/s
bench_resync.py watch OUT FSD CONF      every 250 ms until SIGTERM: processor time by process group,
                                  and what `show chains` says of replicas that sync
bench_resync.py speed LOG FROM TO       MiB/s that fio did between these times (ms), from its logs
bench_resync.py span LOGS FROM          first and last ms, replicas, chunks compared, chunks and MiB
                                  copied: what the logs say was brought up to date after FROM
bench_resync.py cpu OUT FROM TO         where processor time went, in percent of all
bench_resync.py judge LIMIT SHARE FULL ALONE WITH RATE
                                  a row of the table
bench_resync.py progress OUT FROM TO    whether what was shown was right; status 1 when it was not
"""
import calendar
import glob
import json
import mmap
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time

MIB = 1 << 20

def now():
    return int(time.time() * 1000)

# ---- a plain copy ----

def pump(take, give):
    """Two threads and eight buffers between them, as a program would that is in a hurry."""
    empty, full = queue.Queue(), queue.Queue()
    for _ in range(8):
        empty.put(mmap.mmap(-1, MIB))

    def taker():
        while True:
            buf = empty.get()
            if not take(buf):
                full.put(None)
                return
            full.put(buf)
    t = threading.Thread(target=taker)
    t.start()
    while (buf := full.get()) is not None:
        give(buf)
        empty.put(buf)
    t.join()

def copy(source, target, mib):
    listener = socket.create_server(("127.0.0.1", 0))
    begun = time.monotonic()
    if os.fork() == 0:
        src = os.open(source, os.O_RDONLY | os.O_DIRECT)
        to = socket.create_connection(listener.getsockname())
        left = mib

        def read(buf):
            nonlocal left
            if left == 0:
                return False
            if os.readv(src, [buf]) != MIB:
                os._exit(1)
            left -= 1
            return True
        pump(read, to.sendall)
        os._exit(0)
    peer, _ = listener.accept()
    dst = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)

    def receive(buf):
        view, at = memoryview(buf), 0
        while at < MIB:
            n = peer.recv_into(view[at:])
            if n == 0:
                return False
            at += n
        return True
    written = 0

    def write(buf):
        nonlocal written
        written += os.writev(dst, [buf])
    pump(receive, write)
    os.fdatasync(dst)
    seconds = time.monotonic() - begun
    if os.wait()[1] != 0 or written != mib * MIB:
        sys.exit("the copy is not whole")
    print(f"{mib / seconds:.1f}")

# ---- watching ----

def group(words):
    if b"--role=storage" in words:
        return "storage"
    if b"--role=" in words:
        return "managers"
    if b"\0mount\0" in words or words.startswith(b"fio"):
        return "clients"
    return None

def processes(fsd):
    """Ticks by group of the cluster's processes; pid reuse is nothing to worry about."""
    got = {"storage": 0, "managers": 0, "clients": 0}
    for path in glob.glob("/proc/[0-9]*"):
        try:
            with open(path + "/cmdline", "rb") as f:
                words = f.read()
            if fsd.encode() not in words and not words.startswith(b"fio"):
                continue
            g = group(words)
            if g is not None:
                with open(path + "/stat") as f:
                    v = f.read().rsplit(")", 1)[1].split()
                got[g] += int(v[11]) + int(v[12])
        except OSError:
            pass
    return got

def watch(out, fsd, conf):
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with open(out, "w") as f:
        while not stop.wait(0.25):
            with open("/proc/stat") as p:
                cpu = [int(v) for v in p.readline().split()[1:9]]
            row = {"ms": now(), "all": sum(cpu), "idle": cpu[3] + cpu[4],
                   "of": processes(fsd)}
            said = subprocess.run([fsd, "admin", "--config", conf, "--json", "show",
                                   "chains"], capture_output=True, text=True, check=False)
            try:
                row["chains"] = {c["chain"]: c for c in json.loads(said.stdout)}
            except ValueError:
                row["chains"] = {}
            f.write(json.dumps(row) + "\n")
            f.flush()

def samples(out, start, end):
    with open(out) as f:
        rows = [json.loads(line) for line in f]
    return [r for r in rows if start <= r["ms"] <= end]

def cpu_row(out, start, end):
    rows = samples(out, start, end)
    if len(rows) < 2:
        print("-")
        return
    a, b = rows[0], rows[-1]
    total = max(1, b["all"] - a["all"])
    part = {g: (b["of"][g] - a["of"][g]) * 100 / total for g in b["of"]}
    idle = (b["idle"] - a["idle"]) * 100 / total
    part["others"] = max(0, 100 - idle - sum(part.values()))
    print(" ".join(f"{g} {p:.0f}" for g, p in part.items()) + f" idle {idle:.0f}")

# ---- what fio did ----

def speed(log, start, end):
    kib = 0.0
    for path in glob.glob(log + "_bw.*.log"):
        before = None
        with open(path) as f:
            for line in f:
                ms, value = (int(v) for v in line.split(",")[:2])
                since = before if before is not None else ms - 250
                lap = min(ms, end) - max(since, start)
                if lap > 0:
                    kib += value * lap / 1000
                before = ms
    print(f"{kib / 1024 / ((end - start) / 1000):.1f}")

# ---- what storage nodes say ----

def span(logs, start):
    first = last = None
    compared = copied = size = n = 0
    for path in glob.glob(logs):
        with open(path, errors="replace") as f:
            for line in f:
                if "replica is up to date" not in line:
                    continue
                at = time.strptime(line[:19], "%Y-%m-%dT%H:%M:%S")
                ms = calendar.timegm(at) * 1000 + int(line[20:23])
                if ms < start:
                    continue
                v = dict(re.findall(r"(\w+)=(\d+)", line))
                begun = ms - int(v["ms"])
                first = begun if first is None else min(first, begun)
                last = ms if last is None else max(last, ms)
                compared += int(v["compared"])
                copied += int(v["copied"])
                size += int(v["bytes"])
                n += 1
    if n == 0:
        sys.exit("no replica was brought up to date")
    print(first, last, n, compared, copied, f"{size / MIB:.1f}")

PROGRESS = re.compile(r"(\d+)/(\d+) chunks, (\d+) copied, ([\d.]+) MiB, "
                      r"([\d.]+) MiB/s, (\d+) s left")

def looks(out, start, end):
    """What was shown of each replica, in order; a new version of a chain begins anew."""
    of = {}
    for r in samples(out, start, end + 500):
        for c, v in r["chains"].items():
            m = PROGRESS.match(v["progress"])
            if m is not None:
                of.setdefault((c, v["version"]), []).append(
                    (r["ms"] / 1000, v["progress"]) + tuple(float(x) for x in m.groups()))
    return of

def progress(out, start, end):
    """Numbers never go back nor over the total; the speed is that at which the bytes grow; the
    time that is left is what the bytes that were still to be copied take at that speed."""
    wrong, seen = [], 0
    for chain, rows in looks(out, start, end).items():
        whole = rows[-1][5]
        for i, (at, text, done, total, copied, mib, rate, left) in enumerate(rows):
            seen += 1
            before = next((r for r in rows[:i] if at - 4 <= r[0] <= at - 2), None)
            said = f"chain {chain[0]}: {text}"
            if done > total or copied > done:
                wrong.append(f"over the total, {said}")
            if i > 0 and (done < rows[i - 1][2] or mib < rows[i - 1][5]):
                wrong.append(f"went back, {said}")
            if before is not None:
                real = (mib - before[5]) / (at - before[0])
                if not real / 2 - 4 <= rate <= real * 2 + 4:
                    wrong.append(f"{real:.1f} MiB/s really, {said}")
            # The last look is not the end of it.
            if before is not None and left * rate > 0 and not (
                    (whole - mib) * 0.6 - 2 * rate <= left * rate <=
                    (whole - mib) * 1.5 + 4 * rate + 8):
                wrong.append(f"{whole - mib:.0f} MiB were left, {said}")
    if seen == 0:
        wrong.append("no progress was shown")
    for w in wrong[:5]:
        print(w)
    if not wrong:
        print(f"progress was shown right {seen} times")
    sys.exit(1 if wrong else 0)

# ---- verdicts ----

def judge(limit, share, full, alone, with_, rate):
    """Fair to the programs: what they ask for, but of their full speed no more than what
    the share for copies leaves.  Left for copies: of the limit the part that the programs
    do not use of their full speed."""
    limit, share, full, alone, with_, rate = (
        float(v) for v in (limit, share, full, alone, with_, rate))
    fair = min(alone, full * (100 - share) / 100)
    beyond = max(0.0, (1 - with_ / fair) * 100)
    left = limit * max(0.0, 1 - with_ / full)
    reached = 100.0 if left <= 0 else rate / left * 100
    print(f"{alone:7.1f} {fair:7.1f} {with_:7.1f} {beyond:6.1f} % "
          f"{'ok   ' if beyond <= 10 else 'ABOVE'} {left:7.1f} {rate:7.1f} {reached:6.0f} % "
          f"{'ok' if reached >= 50 else 'BELOW'}")

def main():
    what, args = sys.argv[1], sys.argv[2:]
    if what == "copy":
        copy(args[0], args[1], int(args[2]))
    elif what == "watch":
        watch(*args)
    elif what == "judge":
        judge(*args)
    elif what == "speed":
        speed(args[0], int(args[1]), int(args[2]))
    elif what == "span":
        span(args[0], int(args[1]))
    elif what == "cpu":
        cpu_row(args[0], int(args[1]), int(args[2]))
    elif what == "progress":
        progress(args[0], int(args[1]), int(args[2]))
    else:
        sys.exit(__doc__)

main()
