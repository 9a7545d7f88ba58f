#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Damage the metadata of a cluster that is not running: plant.py TABLE COMMAND...

    inode PATH             print the inode of PATH
    lose-inode INO         its row is gone
    lose-entry INO NAME    the entry NAME of directory INO is gone
    entry INO NAME TO      another one, of a directory if TO is one
    nlink INO N            a wrong number of links
    size INO N             a wrong size
    rot INO                its row cannot be read

Rows are as fsd-disk(5) says; written through liblmdb itself."""
import ctypes
import struct
import sys

lmdb = ctypes.CDLL("liblmdb.so.0")
xxh = ctypes.CDLL("libxxhash.so.0")
xxh.XXH64.restype = ctypes.c_uint64
xxh.XXH64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
NOSUBDIR, RDONLY = 0x4000, 0x20000


class Val(ctypes.Structure):
    _fields_ = [("n", ctypes.c_size_t), ("p", ctypes.c_void_p)]


def val(b):
    v = Val(len(b), ctypes.cast(ctypes.c_char_p(b), ctypes.c_void_p))
    v.kept = b
    return v


def ok(rc, *allowed):
    if rc != 0 and rc not in allowed:
        lmdb.mdb_strerror.restype = ctypes.c_char_p
        sys.exit("lmdb: " + lmdb.mdb_strerror(rc).decode())
    return rc


class Table:
    def __init__(self, path):
        self.env, self.txn = ctypes.c_void_p(), ctypes.c_void_p()
        self.dbi = ctypes.c_uint()
        ok(lmdb.mdb_env_create(ctypes.byref(self.env)))
        ok(lmdb.mdb_env_set_mapsize(self.env, ctypes.c_size_t(1 << 36)))
        ok(lmdb.mdb_env_open(self.env, path.encode(), NOSUBDIR, 0o600))
        ok(lmdb.mdb_txn_begin(self.env, None, 0, ctypes.byref(self.txn)))
        ok(lmdb.mdb_dbi_open(self.txn, None, 0, ctypes.byref(self.dbi)))

    def get(self, key):
        k, v = val(key), Val()
        if ok(lmdb.mdb_get(self.txn, self.dbi, ctypes.byref(k), ctypes.byref(v)), -30798):
            return None
        return ctypes.string_at(v.p, v.n) if v.n else b""

    def put(self, key, row):
        k, v = val(key), val(row)
        ok(lmdb.mdb_put(self.txn, self.dbi, ctypes.byref(k), ctypes.byref(v), 0))

    def delete(self, key):
        k = val(key)
        ok(lmdb.mdb_del(self.txn, self.dbi, ctypes.byref(k), None))

    def commit(self):
        ok(lmdb.mdb_txn_commit(self.txn))
        lmdb.mdb_env_close(self.env)


def inode_key(ino):
    return b"I" + struct.pack(">Q", ino)


def entry_key(ino, name):
    h = xxh.XXH64(name, len(name), 0x6673642D64697231) & ((1 << 63) - 1)
    return b"D" + struct.pack(">QQ", ino, h + 3 if h < 3 else h) + name


def field(table, ino, at, fmt, value):
    row = bytearray(table.get(inode_key(ino)))
    struct.pack_into(fmt, row, at, value)
    table.put(inode_key(ino), bytes(row))


def main(path, command, *args):
    t = Table(path)
    if command == "inode":
        ino = 1
        for name in args[0].strip("/").split("/"):
            ino = struct.unpack_from("<Q", t.get(entry_key(ino, name.encode())), 2)[0]
        print(ino)
    elif command == "lose-inode":
        t.delete(inode_key(int(args[0])))
    elif command == "lose-entry":
        t.delete(entry_key(int(args[0]), args[1].encode()))
    elif command == "entry":
        mode = struct.unpack_from("<I", t.get(inode_key(int(args[2]))), 4)[0]
        t.put(entry_key(int(args[0]), args[1].encode()),
              struct.pack("<BBQ", 1, mode >> 12, int(args[2])))
    elif command == "nlink":
        field(t, int(args[0]), 8, "<I", int(args[1]))
    elif command == "rot":
        t.put(inode_key(int(args[0])), b"?")
    elif command == "size":
        field(t, int(args[0]), 56, "<Q", int(args[1]))
    else:
        sys.exit(__doc__)
    t.commit()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
