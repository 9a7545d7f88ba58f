#!/usr/bin/env python3
"""Compare two trees: names, types, content, modes, owners, link counts, targets, times.
Usage: compare.py A B; prints each difference, exit status 1 when there is one, or
when there is nothing to compare."""
import filecmp
import os
import stat
import sys

def walk(root):
    out = {}
    for d, dirs, files in os.walk(root):
        for n in dirs + files:
            p = os.path.join(d, n)
            out[os.path.relpath(p, root)] = os.lstat(p)
    return out

def main():
    a, b = sys.argv[1], sys.argv[2]
    ta, tb = walk(a), walk(b)
    bad, nbytes = 0, 0
    # Files that are one inode in A must be one inode in B.
    inodes = {}
    for name in sorted(set(ta) | set(tb)):
        if name not in ta or name not in tb:
            print("only in", a if name in ta else b, name)
            bad += 1
            continue
        x, y = ta[name], tb[name]
        pa, pb = os.path.join(a, name), os.path.join(b, name)
        why = []
        if x.st_mode != y.st_mode:
            why.append("mode %o %o" % (x.st_mode, y.st_mode))
        if (x.st_uid, x.st_gid) != (y.st_uid, y.st_gid):
            why.append("owner")
        if x.st_mtime_ns != y.st_mtime_ns and not stat.S_ISLNK(x.st_mode):
            why.append("mtime %d %d" % (x.st_mtime_ns, y.st_mtime_ns))
        if stat.S_ISLNK(x.st_mode):
            if os.readlink(pa) != os.readlink(pb):
                why.append("target")
        elif stat.S_ISREG(x.st_mode):
            if x.st_size != y.st_size:
                why.append("size %d %d" % (x.st_size, y.st_size))
            elif not filecmp.cmp(pa, pb, shallow=False):
                why.append("content")
            nbytes += x.st_size
            if x.st_nlink > 1:
                twin = inodes.setdefault((x.st_dev, x.st_ino), y.st_ino)
                if twin != y.st_ino:
                    why.append("no longer a hard link")
        elif stat.S_ISDIR(x.st_mode) and x.st_nlink != y.st_nlink and x.st_nlink > 1:
            why.append("nlink %d %d" % (x.st_nlink, y.st_nlink))
        if why:
            print(name, "; ".join(why))
            bad += 1
            if bad > 50:
                break
    print("%d names, %d bytes, %d differences" % (len(ta), nbytes, bad))
    return 1 if bad or not ta else 0

sys.exit(main())
