#!/usr/bin/env python3
"""What POSIX promises, on a mounted directory, checked one by one; the last lines need root.
Usage: _posix.py MOUNT [ENTRIES of a large directory]; ends with N passed, N failed."""
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = tempfile.mkdtemp(prefix="posix.", dir=sys.argv[1])
MANY = int(sys.argv[2]) if len(sys.argv) > 2 else 20000
libc = ctypes.CDLL(None, use_errno=True)
cases = []

def case(f):
    cases.append(f)
    return f

def fails(err, f, *args, **kw):
    try:
        f(*args, **kw)
    except OSError as e:
        errs = err if isinstance(err, tuple) else (err,)
        assert e.errno in errs, "%s, wanted %s" % (e, [errno.errorcode[x] for x in errs])
        return
    raise AssertionError("%s%r worked" % (f.__name__, args))

def put(path, data=b"data", mode=0o644):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(fd, data)
    os.close(fd)

def get(path):
    with open(path, "rb") as f:
        return f.read()

def renameat2(old, new, flags):
    if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")

def in_child(f, uid=None, groups=()):
    """Runs f in a process of its own, as another user when asked; its assertion is ours."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            if uid is not None:
                os.setgroups(list(groups))
                os.setgid(uid)
                os.setuid(uid)
            f()
        except BaseException:
            os.write(w, traceback.format_exc().encode())
            code = 1
        os._exit(code)
    os.close(w)
    said = b""
    while True:
        b = os.read(r, 65536)
        if not b:
            break
        said += b
    os.close(r)
    assert os.waitpid(pid, 0)[1] == 0, said.decode()

# ---- attributes ----

@case
def modes(d):
    put(d + "/f", mode=0o600)
    for m in (0, 0o777, 0o4755, 0o2755, 0o1644, 0o640):
        os.chmod(d + "/f", m)
        assert stat.S_IMODE(os.stat(d + "/f").st_mode) == m
    c = os.stat(d + "/f").st_ctime_ns
    time.sleep(0.002)
    os.chmod(d + "/f", 0o644)
    assert os.stat(d + "/f").st_ctime_ns > c
    fails(errno.ENOENT, os.chmod, d + "/none", 0o600)

@case
def umask_is_obeyed(d):
    old = os.umask(0o027)
    put(d + "/f", mode=0o666)
    os.mkdir(d + "/d", 0o777)
    os.umask(old)
    assert stat.S_IMODE(os.stat(d + "/f").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(d + "/d").st_mode) == 0o750

@case
def times_in_nanoseconds(d):
    put(d + "/f")
    os.utime(d + "/f", ns=(1234567890123456789, 987654321987654321))
    s = os.stat(d + "/f")
    assert (s.st_atime_ns, s.st_mtime_ns) == (1234567890123456789, 987654321987654321)
    os.utime(d + "/f", ns=(-1, -1500000000))            # before 1970
    s = os.stat(d + "/f")
    assert (s.st_atime_ns, s.st_mtime_ns) == (-1, -1500000000), (s.st_atime_ns, s.st_mtime_ns)
    t = time.time_ns()
    os.utime(d + "/f")
    assert abs(os.stat(d + "/f").st_mtime_ns - t) < 2e9
    os.symlink("f", d + "/l")
    os.utime(d + "/l", ns=(5, 7), follow_symlinks=False)
    assert os.lstat(d + "/l").st_mtime_ns == 7 and os.stat(d + "/f").st_mtime_ns != 7
    before = os.stat(d).st_mtime_ns
    time.sleep(0.002)
    put(d + "/g")
    after = os.stat(d).st_mtime_ns
    assert after > before
    time.sleep(0.002)
    os.unlink(d + "/g")
    assert os.stat(d).st_mtime_ns > after

@case
def write_sets_mtime(d):
    put(d + "/f")
    os.utime(d + "/f", ns=(1, 1))
    fd = os.open(d + "/f", os.O_WRONLY)
    assert os.fstat(fd).st_mtime_ns == 1
    os.write(fd, b"x")
    os.close(fd)
    assert abs(os.stat(d + "/f").st_mtime_ns - time.time_ns()) < 5e9
    # what cp -a does: times set through the descriptor that wrote stay
    fd = os.open(d + "/g", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x" * 100000)
    os.utime(fd, ns=(3, 4))
    os.close(fd)
    time.sleep(0.05)
    assert os.stat(d + "/g").st_mtime_ns == 4, os.stat(d + "/g").st_mtime_ns

@case
def link_counts(d):
    put(d + "/f")
    os.link(d + "/f", d + "/g")
    assert os.stat(d + "/f").st_nlink == 2 and os.stat(d + "/f").st_ino == os.stat(d + "/g").st_ino
    os.unlink(d + "/f")
    assert os.stat(d + "/g").st_nlink == 1 and get(d + "/g") == b"data"
    n = os.stat(d).st_nlink
    os.mkdir(d + "/d")
    assert os.stat(d).st_nlink == n + 1 and os.stat(d + "/d").st_nlink == 2
    os.rmdir(d + "/d")
    assert os.stat(d).st_nlink == n
    os.symlink("x", d + "/s")
    os.link(d + "/s", d + "/s2", follow_symlinks=False)
    assert os.readlink(d + "/s2") == "x"
    fails(errno.EEXIST, os.link, d + "/g", d + "/s")
    fails((errno.EPERM, errno.EACCES), os.link, d, d + "/dirlink")

@case
def blocks_and_statfs(d):
    put(d + "/f", b"x" * 5000)
    assert os.stat(d + "/f").st_blocks >= 9
    v = os.statvfs(d)
    assert v.f_blocks > v.f_bfree >= v.f_bavail > 0 and v.f_namemax == 255 and v.f_bsize >= 4096
    assert v.f_files > 0 and v.f_ffree > 0

# ---- names ----

@case
def kinds(d):
    os.mkfifo(d + "/fifo", 0o640)
    assert stat.S_ISFIFO(os.stat(d + "/fifo").st_mode)
    t = threading.Thread(target=put, args=(d + "/fifo", b"through"))
    t.start()
    assert get(d + "/fifo") == b"through"
    t.join()
    import socket
    s = socket.socket(socket.AF_UNIX)
    os.chdir(d)
    s.bind("sock")
    os.chdir("/")
    assert stat.S_ISSOCK(os.stat(d + "/sock").st_mode)
    s.close()
    if os.geteuid() == 0:
        os.mknod(d + "/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(d + "/blk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
        assert os.stat(d + "/blk").st_rdev == os.makedev(259, 70000)
        assert stat.S_ISCHR(os.stat(d + "/null").st_mode) and get(d + "/null") == b""
    os.mknod(d + "/reg", stat.S_IFREG | 0o600)
    assert os.stat(d + "/reg").st_size == 0

@case
def symlinks(d):
    for n in (1, 100, 1000, 4095):
        t = "t" * n
        os.symlink(t, d + "/l%d" % n)
        assert os.readlink(d + "/l%d" % n) == t and os.lstat(d + "/l%d" % n).st_size == n
    os.symlink("loop", d + "/loop")
    fails(errno.ELOOP, os.stat, d + "/loop")
    fails(errno.EEXIST, os.symlink, "x", d + "/loop")

@case
def names_long_and_odd(d):
    for n in ("n" * 255, "ä" * 127, "a\nb", " ", "-x", "..."):
        put(d + "/" + n, n.encode())
        assert get(d + "/" + n) == n.encode()
    b = d.encode() + b"/\xff\x01\xfe"
    put(b)
    assert len(os.listdir(d)) == 7 and os.path.basename(b) in os.listdir(d.encode())
    fails(errno.ENAMETOOLONG, put, d + "/" + "n" * 256)
    fails(errno.ENAMETOOLONG, os.stat, d + "/" + "n" * 256)

@case
def deep_paths(d):
    os.chdir(d)
    for i in range(300):
        os.mkdir("deep")
        os.chdir("deep")
    put("bottom", b"found")
    assert get("bottom") == b"found"
    assert len(os.getcwd()) > 1500
    os.chdir("/")
    assert get(d + "/deep" * 300 + "/bottom") == b"found"
    subprocess.run(["rm", "-rf", d + "/deep"], check=True)

@case
def rename_rules(d):
    put(d + "/a", b"a")
    put(d + "/b", b"b")
    os.rename(d + "/a", d + "/b")
    assert get(d + "/b") == b"a" and not os.path.exists(d + "/a")
    os.link(d + "/b", d + "/b2")
    os.rename(d + "/b", d + "/b2")          # one inode: nothing happens
    assert os.path.exists(d + "/b") and os.path.exists(d + "/b2")
    os.mkdir(d + "/d1")
    os.mkdir(d + "/d2")
    put(d + "/d2/x")
    fails((errno.ENOTEMPTY, errno.EEXIST), os.rename, d + "/d1", d + "/d2")
    os.unlink(d + "/d2/x")
    os.rename(d + "/d1", d + "/d2")
    fails(errno.EISDIR, os.rename, d + "/b", d + "/d2")
    fails(errno.ENOTDIR, os.rename, d + "/d2", d + "/b")
    os.mkdir(d + "/d2/in")
    fails(errno.EINVAL, os.rename, d + "/d2", d + "/d2/in/x")
    fails(errno.ENOENT, os.rename, d + "/none", d + "/x")
    os.mkdir(d + "/d3")
    os.rename(d + "/d2/in", d + "/d3/in")   # .. moves with it
    assert os.stat(d + "/d3/in/..").st_ino == os.stat(d + "/d3").st_ino
    assert os.stat(d + "/d3").st_nlink == 3 and os.stat(d + "/d2").st_nlink == 2

@case
def rename_noreplace_and_exchange(d):
    put(d + "/a", b"a")
    put(d + "/b", b"b")
    fails(errno.EEXIST, renameat2, d + "/a", d + "/b", 1)
    renameat2(d + "/a", d + "/c", 1)
    assert get(d + "/c") == b"a"
    renameat2(d + "/b", d + "/c", 2)
    assert get(d + "/c") == b"b" and get(d + "/b") == b"a"
    fails(errno.ENOENT, renameat2, d + "/b", d + "/none", 2)
    os.mkdir(d + "/d")
    put(d + "/d/x", b"x")
    renameat2(d + "/d", d + "/b", 2)        # a directory with a file
    assert get(d + "/b/x") == b"x" and get(d + "/d") == b"a"

@case
def removals(d):
    os.mkdir(d + "/d")
    put(d + "/d/x")
    fails(errno.ENOTEMPTY, os.rmdir, d + "/d")
    fails((errno.EISDIR, errno.EPERM), os.unlink, d + "/d")
    fails(errno.ENOTDIR, os.rmdir, d + "/d/x")
    fails(errno.ENOENT, os.unlink, d + "/none")
    fails(errno.ENOTDIR, os.stat, d + "/d/x/y")
    fails(errno.EEXIST, os.mkdir, d + "/d")

@case
def unlinked_while_open(d):
    fd = os.open(d + "/f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 3000000)
    os.unlink(d + "/f")
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, b"later", 5000000)
    os.fsync(fd)
    assert os.pread(fd, 5, 5000000) == b"later" and os.pread(fd, 3, 2999997) == b"xxx"
    os.ftruncate(fd, 10)
    assert os.fstat(fd).st_size == 10
    os.close(fd)
    put(d + "/a", b"old")
    fd = os.open(d + "/a", os.O_RDONLY)
    put(d + "/b", b"new")
    os.rename(d + "/b", d + "/a")           # replaced while open
    assert os.read(fd, 10) == b"old" and get(d + "/a") == b"new"
    os.close(fd)

@case
def directory_listed_while_changing(d):
    n, stop = MANY, threading.Event()
    stable = ["s%05d" % i for i in range(n)]
    for s in stable:
        os.close(os.open(d + "/" + s, os.O_CREAT | os.O_WRONLY))
    def churn():
        i = 0
        while not stop.is_set():
            os.mkdir(d + "/c%d" % i)
            os.rename(d + "/c%d" % i, d + "/z%d" % i)
            os.rmdir(d + "/z%d" % i)
            i += 1
    t = threading.Thread(target=churn)
    t.start()
    try:
        for k in range(3):
            seen = [e for e in os.listdir(d) if e[0] == "s"]
            assert len(seen) == n and len(set(seen)) == n, (len(seen), len(set(seen)), n)
        with os.scandir(d) as it:           # with attributes
            k = sum(1 for e in it if e.name[0] == "s" and e.stat().st_size == 0)
        assert k == n, k
    finally:
        stop.set()
        t.join()
    # removed while it is read: what rm -r does
    for e in os.scandir(d):
        os.unlink(e.path)
    assert os.listdir(d) == []

# ---- data ----

@case
def exclusive_and_truncating_opens(d):
    put(d + "/f", b"0123456789")
    fails(errno.EEXIST, os.open, d + "/f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.close(os.open(d + "/f", os.O_WRONLY | os.O_TRUNC))
    assert os.stat(d + "/f").st_size == 0
    fails(errno.EISDIR, os.open, d, os.O_WRONLY)
    fails(errno.ENOTDIR, os.open, d + "/f", os.O_RDONLY | os.O_DIRECTORY)
    os.symlink("f", d + "/l")
    fails(errno.ELOOP, os.open, d + "/l", os.O_RDONLY | os.O_NOFOLLOW)
    fd = os.open(d + "/f", os.O_RDONLY)
    fails(errno.EBADF, os.write, fd, b"x")
    os.close(fd)

@case
def truncates(d):
    fd = os.open(d + "/f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 3000000)
    for n in (2999999, 1048576, 1048575, 65537, 4097, 100, 0):
        os.ftruncate(fd, n)
        assert os.fstat(fd).st_size == n
        os.ftruncate(fd, 3000000)
        data = os.pread(fd, 3000000, 0)
        assert data == b"x" * n + b"\0" * (3000000 - n), n
    os.close(fd)
    os.truncate(d + "/f", 7)
    assert get(d + "/f") == b"\0" * 7
    fails((errno.EFBIG, errno.EINVAL), os.truncate, d + "/f", 1 << 62)
    fails(errno.EISDIR, os.truncate, d, 0)

@case
def sparse_files(d):
    fd = os.open(d + "/f", os.O_CREAT | os.O_RDWR)
    at = [0, 70000, (1 << 20) - 3, (1 << 30) + 5, (1 << 40) + 12345]
    for i, o in enumerate(at):
        os.pwrite(fd, b"data%d" % i, o)
    assert os.fstat(fd).st_size == at[-1] + 5
    os.close(fd)
    fd = os.open(d + "/f", os.O_RDONLY)
    for i, o in enumerate(at):
        assert os.pread(fd, 5, o) == b"data%d" % i
    assert os.pread(fd, 100000, 1 << 29) == b"\0" * 100000
    assert os.pread(fd, 10, at[-1] + 5) == b""
    os.close(fd)

@case
def many_small_writes_at_random(d):
    rnd, size = random.Random(7), 3 << 20
    want = bytearray(size)
    fd = os.open(d + "/f", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, size)
    for i in range(3000):
        n = rnd.choice((1, 10, 511, 4096, 5000, 70000))
        o = rnd.randrange(size - n)
        b = rnd.randbytes(n)
        os.pwrite(fd, b, o)
        want[o:o + n] = b
        if i % 300 == 0:
            o = rnd.randrange(size)
            assert os.pread(fd, 9999, o) == bytes(want[o:o + 9999])
        if i % 1000 == 999:
            os.fsync(fd)
    os.close(fd)
    assert get(d + "/f") == bytes(want)
    subprocess.run(["sh", "-c", "echo 2 >/proc/sys/vm/drop_caches 2>/dev/null; exit 0"])
    fd = os.open(d + "/f", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, size, 0) == bytes(want)
    os.close(fd)

@case
def mapped_writes(d):
    n = 2 << 20
    fd = os.open(d + "/f", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, n)
    m = mmap.mmap(fd, n)
    for o in range(0, n, 5000):
        m[o:o + 4] = b"%04d" % (o // 5000)
    m.flush()
    assert os.pread(fd, 4, 5000) == b"0001"
    m.close()
    os.close(fd)
    data = get(d + "/f")
    assert all(data[o:o + 4] == b"%04d" % (o // 5000) for o in range(0, n, 5000))
    # and a mapping sees what was written
    fd = os.open(d + "/f", os.O_RDWR)
    m = mmap.mmap(fd, n, mmap.MAP_SHARED, mmap.PROT_READ)
    assert m[5000:5004] == b"0001"
    os.pwrite(fd, b"seen", 5000)
    assert m[5000:5004] == b"seen"
    m.close()
    os.close(fd)

@case
def appends_of_several_processes(d):
    procs, each = 6, 300
    def one(k):
        fd = os.open(d + "/f", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for i in range(each):
            os.write(fd, b"%d %06d" % (k, i) + b"." * (k * 37) + b"\n")
        os.close(fd)
    pids = []
    for k in range(procs):
        pid = os.fork()
        if pid == 0:
            try:
                one(k)
            except BaseException:
                os._exit(1)
            os._exit(0)
        pids.append(pid)
    assert all(os.waitpid(p, 0)[1] == 0 for p in pids)
    lines = get(d + "/f").split(b"\n")
    assert lines.pop() == b"" and len(lines) == procs * each, len(lines)
    seen = [[] for _ in range(procs)]
    for l in lines:
        k = int(l[:1])
        assert len(l) == 8 + k * 37, l
        seen[k].append(int(l[2:8]))
    assert all(s == list(range(each)) for s in seen)

@case
def direct_io(d):
    n = 1 << 20
    buf = mmap.mmap(-1, n)
    buf[:] = hashlib.sha256(b"x").digest() * (n // 32)
    fd = os.open(d + "/f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    for i in range(4):
        assert os.writev(fd, [buf]) == n
    small = mmap.mmap(-1, 4096)
    small[:] = b"s" * 4096
    assert os.pwritev(fd, [small], 4096 * 3) == 4096
    back = mmap.mmap(-1, n)
    assert os.preadv(fd, [back], 0) == n
    want = bytearray(buf[:])
    want[4096 * 3:4096 * 4] = b"s" * 4096
    assert back[:] == bytes(want)
    assert os.preadv(fd, [back], 4 * n) == 0
    os.close(fd)
    assert get(d + "/f") == bytes(want) + buf[:] * 3
    # direct and buffered see each other
    put(d + "/f", b"b" * 8192)
    fd = os.open(d + "/f", os.O_RDWR | os.O_DIRECT)
    assert os.preadv(fd, [small], 4096) == 4096 and small[:] == b"b" * 4096
    small[:] = b"d" * 4096
    assert os.pwritev(fd, [small], 0) == 4096
    os.close(fd)
    assert get(d + "/f") == b"d" * 4096 + b"b" * 4096

@case
def locks_of_processes(d):
    put(d + "/f")
    fd = os.open(d + "/f", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fd2 = os.open(d + "/f", os.O_RDWR)
    fails(errno.EWOULDBLOCK, fcntl.flock, fd2, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd2)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
    def other():
        f = os.open(d + "/f", os.O_RDWR)
        fails((errno.EAGAIN, errno.EACCES), fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20)
    in_child(other)
    os.close(fd)

@case
def what_is_not_offered_says_so(d):
    no = (errno.EOPNOTSUPP, errno.ENOSYS)
    put(d + "/f", b"x" * 100)
    fails(errno.EOPNOTSUPP, os.setxattr, d + "/f", "user.a", b"1")
    fails((errno.EOPNOTSUPP, errno.ENODATA), os.getxattr, d + "/f", "user.a")
    try:
        assert os.listxattr(d + "/f") == []
    except OSError as e:
        assert e.errno == errno.EOPNOTSUPP
    fd = os.open(d + "/f", os.O_RDWR)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    for mode in (0, 1, 3, 16):
        assert libc.fallocate(fd, mode, 0, 4096) == -1 and ctypes.get_errno() in no
    assert os.fstat(fd).st_size == 100 and get(d + "/f") == b"x" * 100
    fails((errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSYS, errno.EINVAL), os.open, d,
          os.O_TMPFILE | os.O_RDWR)
    out = os.open(d + "/g", os.O_CREAT | os.O_RDWR)
    assert os.copy_file_range(fd, out, 100, 0, 0) == 100     # the kernel copies
    os.close(fd)
    os.close(out)
    assert get(d + "/g") == b"x" * 100

@case
def many_threads(d):
    bad = []
    def one(k):
        try:
            rnd = random.Random(k)
            os.mkdir(d + "/t%d" % k)
            for i in range(60):
                p = d + "/t%d/%d" % (k, i)
                b = rnd.randbytes(rnd.choice((0, 1, 4096, 40000)))
                put(p, b)
                os.rename(p, p + "r")
                if get(p + "r") != b:
                    bad.append(p)
            shutil.rmtree(d + "/t%d" % k)
        except BaseException as e:
            bad.append(e)
    ts = [threading.Thread(target=one, args=(k,)) for k in range(8)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    assert not bad, bad[:3]
    assert os.listdir(d) == []

@case
def killed_callers(d):
    # A process killed in the middle of writing harms nobody.
    for i in range(10):
        p = subprocess.Popen(["dd", "if=/dev/zero", "of=%s/k" % d, "bs=1M", "count=200"],
                             stderr=subprocess.DEVNULL)
        time.sleep(0.02 * i)
        p.kill()
        p.wait()
    put(d + "/k", b"fine")
    assert get(d + "/k") == b"fine"

# ---- other users; needs root ----

U, V, G = 12345, 23456, 34567

@case
def permissions(d):
    os.mkdir(d + "/mine", 0o700)
    put(d + "/mine/f")
    put(d + "/r", mode=0o644)
    put(d + "/secret", b"s", mode=0o600)
    put(d + "/w", mode=0o666)
    os.chmod(d + "/w", 0o666)
    os.mkdir(d + "/open")
    os.chmod(d + "/open", 0o777)
    def user():
        fails(errno.EACCES, os.stat, d + "/mine/f")
        fails(errno.EACCES, os.listdir, d + "/mine")
        assert get(d + "/r") == b"data"
        fails(errno.EACCES, put, d + "/r")
        fails(errno.EACCES, get, d + "/secret")
        put(d + "/w", b"new")
        fails(errno.EACCES, put, d + "/new")
        fails(errno.EACCES, os.mkdir, d + "/newd")
        fails(errno.EACCES, os.unlink, d + "/r")
        fails(errno.EACCES, os.rename, d + "/r", d + "/open/r")
        fails(errno.EPERM, os.chmod, d + "/w", 0o600)
        fails(errno.EPERM, os.chown, d + "/w", U, U)
        fails(errno.EPERM, os.utime, d + "/w", ns=(1, 1))
        os.utime(d + "/w")                  # now: whoever may write may
        fails(errno.EACCES, os.utime, d + "/r")
        fails(errno.EACCES, os.truncate, d + "/r", 0)
        put(d + "/open/f")
        s = os.stat(d + "/open/f")
        assert (s.st_uid, s.st_gid) == (U, U)
        os.chmod(d + "/open/f", 0o6755)
        fails(errno.EPERM, os.chown, d + "/open/f", V, U)
        fails(errno.EPERM, os.mknod, d + "/open/dev", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert not os.access(d + "/secret", os.R_OK) and os.access(d + "/r", os.R_OK)
    in_child(user, U)
    assert get(d + "/w") == b"new"
    # a write of another user takes set-uid off
    put(d + "/suid", b"x")
    os.chmod(d + "/suid", 0o6777)
    in_child(lambda: put(d + "/suid", b"y"), U)
    assert stat.S_IMODE(os.stat(d + "/suid").st_mode) == 0o777, oct(os.stat(d + "/suid").st_mode)
    os.chmod(d + "/suid", 0o6777)
    os.chown(d + "/suid", U, U)             # and so does chown
    assert stat.S_IMODE(os.stat(d + "/suid").st_mode) in (0o777, 0o6777)

@case
def supplementary_groups(d):
    os.mkdir(d + "/team")
    os.chown(d + "/team", 0, G)
    os.chmod(d + "/team", 0o2770)
    put(d + "/g", b"group", mode=0o640)
    os.chown(d + "/g", 0, G)
    def member():
        put(d + "/team/f")
        s = os.stat(d + "/team/f")
        assert s.st_gid == G and s.st_uid == U          # set-gid directory
        os.mkdir(d + "/team/sub")
        assert os.stat(d + "/team/sub").st_mode & stat.S_ISGID
        assert get(d + "/g") == b"group"
        put("%s/team/own" % d)
        os.chown(d + "/team/own", -1, G)
        os.chown(d + "/team/own", -1, U)
    in_child(member, U, [1, 2, G])
    def stranger():
        fails(errno.EACCES, os.listdir, d + "/team")
        fails(errno.EACCES, get, d + "/g")
    in_child(stranger, U, [1, 2])
    many = list(range(40000, 40060)) + [G]
    in_child(member_many(d), V, many)

def member_many(d):
    def f():
        assert get(d + "/g") == b"group" and "f" in os.listdir(d + "/team")
    return f

@case
def sticky_directories(d):
    os.mkdir(d + "/t")
    os.chmod(d + "/t", 0o1777)
    def one():
        put(d + "/t/u", mode=0o666)
        os.chmod(d + "/t/u", 0o666)
    in_child(one, U)
    def two():
        put(d + "/t/u", b"may write")
        fails((errno.EPERM, errno.EACCES), os.unlink, d + "/t/u")
        fails((errno.EPERM, errno.EACCES), os.rename, d + "/t/u", d + "/t/v")
        put(d + "/t/v")
        fails((errno.EPERM, errno.EACCES), os.rename, d + "/t/v", d + "/t/u")
        os.unlink(d + "/t/v")
    in_child(two, V)
    in_child(lambda: os.unlink(d + "/t/u"), U)

@case
def programs_run(d):
    shutil.copy("/bin/true", d + "/true")
    os.chmod(d + "/true", 0o755)
    subprocess.run([d + "/true"], check=True)
    put(d + "/s", b"#!/bin/sh\nexit 3\n", 0o755)
    assert subprocess.run([d + "/s"]).returncode == 3
    os.chmod(d + "/true", 0o644)
    fails(errno.EACCES, subprocess.run, [d + "/true"])
    os.chmod(d + "/true", 0o4755)
    os.chown(d + "/true", U, U)

passed = failed = 0
os.chmod(ROOT, 0o755)
for f in cases:
    d = os.path.join(ROOT, f.__name__)
    os.mkdir(d)
    t = time.monotonic()
    try:
        f(d)
        passed += 1
        print("ok      %s (%.1f s)" % (f.__name__.replace("_", " "), time.monotonic() - t))
    except Exception:
        failed += 1
        os.chdir("/")
        print("FAILED  %s\n%s" % (f.__name__, traceback.format_exc()))
    sys.stdout.flush()
try:
    shutil.rmtree(ROOT)
    passed += 1
except OSError as e:
    failed += 1
    print("FAILED  removal:", e)
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed != 0)
