/* SPDX-License-Identifier: MIT */
/* msg_meta.h - what clients ask of the metadata service.
 *
 * Every request starts with who asks.  One that changes something has a sequence
 * number: (client, seq) is recorded with its result in the same transaction, so that a
 * retry, also after a restart of the server, gets the first answer and acts once.
 * Records of seq <= done are dropped.
 * A client that cannot reach the leader names the member of the group that it asks as via:
 * that one passes the request on as it is, and the leader's answer back. */
#ifndef NET_MSG_META_H
#define NET_MSG_META_H

#include "net/msg_core.h"

#define META_NAME_MAX		255u	/* bytes of one name */
#define META_SYMLINK_MAX	4095u	/* bytes of a symlink target */
#define META_LINK_MAX		65000u
#define META_GROUPS_MAX		1024u	/* supplementary groups in a request */

#define MSG_CTX(F) \
	F(uid,      client, "client process")                                   \
	F(u64,      seq,    "number of a change, rises by one; 0: changes nothing") \
	F(u64,      done,   "every change up to this one has been answered")    \
	F(u32,      uid,    "user who asks")                                    \
	F(u32,      gid,    "their group")                                      \
	F(list_u32, groups, "their supplementary groups")                       \
	F(u32,      via,    "node that passes it on to the leader; 0: none")
MSG_DECLARE(ctx, MSG_CTX)

/* Times are nanoseconds since 1970, negative before. */
#define MSG_ATTR(F) \
	F(u64, ino,           "inode")                                          \
	F(u32, mode,          "type and permission bits, as st_mode")           \
	F(u32, nlink,         "links")                                          \
	F(u32, uid,           "owner")                                          \
	F(u32, gid,           "group")                                          \
	F(u64, rdev,          "device number of a device node")                 \
	F(u64, size,          "bytes")                                          \
	F(i64, atime,         "last access")                                    \
	F(i64, mtime,         "last change of content")                         \
	F(i64, ctime,         "last change of the inode")                       \
	F(i64, btime,         "creation")                                       \
	F(u64, change,        "rises with every change of content or inode")    \
	F(u32, epoch,         "truncation epoch: chunks of older ones are cut") \
	F(u32, table,         "chain table the file is striped over")           \
	F(u32, table_version, "its version")                                    \
	F(u8,  chunk_shift,   "log2 of the chunk size, 16..26")                 \
	F(u32, stripe,        "how many chains it uses")                        \
	F(u64, seed,          "of the permutation that picks them")             \
	F(u64, parent,        "directory: its parent; else 0")
MSG_DECLARE(attr, MSG_ATTR)

/* ttl_ms: how long, counted from the sending of the request, the asker may answer
 * from a copy.  The server grants it only while nobody else is there to see a stale
 * one (DESIGN 8, coherent caching; today's lease covers the whole tree). */
#define MSG_ENTRY_REP(F) \
	F(attr, attr,    "the inode")                                           \
	F(u32,  ttl_ms,  "how long it may be cached")                           \
	F(u8,   created, "create: 1 when it was not there before")               \
	F(u64,  at,      "last command of its group before which the inode had this epoch; "  \
	    "1: not known; 0: not told")
MSG_DECLARE(entry_rep, MSG_ENTRY_REP)

#define MSG_LOOKUP(F) \
	F(ctx, ctx,    "who asks")                                              \
	F(u64, parent, "directory; name . and .. are taken too")                \
	F(str, name,   "1..255 bytes")
#define MSG_INO(F) \
	F(ctx, ctx, "who asks")                                                 \
	F(u64, ino, "inode")
MSG_DECLARE(lookup, MSG_LOOKUP)
MSG_DECLARE(ino, MSG_INO)

enum {
	META_SET_MODE = 1, META_SET_UID = 2, META_SET_GID = 4, META_SET_SIZE = 8,
	META_SET_ATIME = 16, META_SET_MTIME = 32,
	META_SET_ATIME_NOW = 64, META_SET_MTIME_NOW = 128
};
#define MSG_SETATTR(F) \
	F(ctx, ctx,    "who asks")                                              \
	F(u64, ino,    "inode")                                                 \
	F(u32, valid,  "bits META_SET_*")                                       \
	F(u32, mode,   "permission bits")                                       \
	F(u32, uid,    "owner")                                                 \
	F(u32, gid,    "group")                                                 \
	F(u64, size,   "bytes")                                                 \
	F(i64, atime,  "nanoseconds")                                           \
	F(i64, mtime,  "nanoseconds")                                           \
	F(u64, handle, "open handle that allows a size change, or 0")
MSG_DECLARE(setattr, MSG_SETATTR)

/* Open and create name the open by a handle the client picks, never 0 and never
 * twice; a retry with the same handle is the same open. */
#define MSG_CREATE(F) \
	F(ctx, ctx,    "who asks")                                              \
	F(u64, parent, "directory")                                             \
	F(str, name,   "1..255 bytes")                                          \
	F(u32, mode,   "permission bits, umask already applied")                \
	F(u32, flags,  "Linux open flags: O_EXCL, O_TRUNC, O_ACCMODE")          \
	F(u64, handle, "open it under this handle; 0: only create")
#define MSG_OPEN(F) \
	F(ctx, ctx,    "who asks; seq not 0 when flags have O_TRUNC")           \
	F(u64, ino,    "inode")                                                 \
	F(u32, flags,  "Linux open flags: O_ACCMODE, O_TRUNC")                  \
	F(u64, handle, "open it under this handle")
/* sync and close settle the length: length is the end of the furthest byte this
 * client has written and storage acknowledged; the file never shrinks by it. */
#define MSG_SYNC(F) \
	F(ctx, ctx,    "who asks; seq 0 when wrote is 0")                       \
	F(u64, ino,    "inode")                                                 \
	F(u64, handle, "close: the open that ends; sync: 0")                    \
	F(u8,  wrote,  "1: length, epoch and mtime count")                      \
	F(u64, length, "end of the furthest acknowledged write, bytes")         \
	F(u32, epoch,  "truncation epoch those writes were made in")            \
	F(i64, mtime,  "time of the last write")
MSG_DECLARE(create, MSG_CREATE)
MSG_DECLARE(open, MSG_OPEN)
MSG_DECLARE(sync, MSG_SYNC)

#define MSG_MKNOD(F) \
	F(ctx, ctx,    "who asks")                                              \
	F(u64, parent, "directory")                                             \
	F(str, name,   "1..255 bytes")                                          \
	F(u32, mode,   "mkdir: permission bits; mknod: type too; umask applied") \
	F(u64, rdev,   "mknod: device number")
#define MSG_SYMLINK(F) \
	F(ctx, ctx,    "who asks")                                              \
	F(u64, parent, "directory")                                             \
	F(str, name,   "1..255 bytes")                                          \
	F(str, target, "1..4095 bytes")
#define MSG_READLINK_REP(F) \
	F(str, target, "1..4095 bytes")
#define MSG_LINK(F) \
	F(ctx, ctx,    "who asks")                                              \
	F(u64, ino,    "inode that gets another name")                          \
	F(u64, parent, "directory")                                             \
	F(str, name,   "1..255 bytes")
#define MSG_NAME(F) \
	F(ctx, ctx,    "who asks")                                              \
	F(u64, parent, "directory")                                             \
	F(str, name,   "1..255 bytes")
#define MSG_RENAME(F) \
	F(ctx, ctx,        "who asks")                                          \
	F(u64, parent,     "directory")                                         \
	F(str, name,       "1..255 bytes")                                      \
	F(u64, new_parent, "directory")                                         \
	F(str, new_name,   "1..255 bytes")                                      \
	F(u32, flags,      "0, RENAME_NOREPLACE or RENAME_EXCHANGE")
MSG_DECLARE(mknod, MSG_MKNOD)
MSG_DECLARE(symlink, MSG_SYMLINK)
MSG_DECLARE(readlink_rep, MSG_READLINK_REP)
MSG_DECLARE(link, MSG_LINK)
MSG_DECLARE(name, MSG_NAME)
MSG_DECLARE(rename, MSG_RENAME)
/* ino and nlink of what lost a name: 0 when the caller need not know. */
#define MSG_UNLINK_REP(F) \
	F(u64, ino,   "inode that lost a name, 0 for none")                     \
	F(u32, nlink, "names it has left")
MSG_DECLARE(unlink_rep, MSG_UNLINK_REP)

/* Listing: a cookie is a place between entries that stays valid whatever is created
 * or removed meanwhile; an entry that was there all the time is listed once. */
#define MSG_READDIR(F) \
	F(ctx, ctx,       "who asks")                                           \
	F(u64, ino,       "directory")                                          \
	F(u64, cookie,    "0 for the start, or of the last entry seen")         \
	F(u32, max_bytes, "bound of the reply, at most 1 MiB")                  \
	F(u8,  plus,      "1: with attributes")
#define MSG_DIRENT(F) \
	F(str,  name,   "1..255 bytes; . and .. are not listed")                \
	F(u64,  ino,    "inode")                                                \
	F(u32,  type,   "type bits of st_mode")                                 \
	F(u64,  cookie, "place after this entry; 3 or more, below 2^63")        \
	F(attr, attr,   "when asked for; ino 0 when it has gone")
MSG_DECLARE(readdir, MSG_READDIR)
MSG_DECLARE(dirent, MSG_DIRENT)
#define MSG_READDIR_REP(F) \
	F(list_dirent, entries, "in cookie order")                              \
	F(u8,          eof,     "1: nothing follows")                           \
	F(u32,         ttl_ms,  "how long each may be cached")
MSG_DECLARE(readdir_rep, MSG_READDIR_REP)

#define MSG_STATFS_REP(F) \
	F(u64, total_bytes, "bytes that files can use in all")                  \
	F(u64, used_bytes,  "bytes that files use")                             \
	F(u64, inodes,      "inodes in use")
MSG_DECLARE(statfs_rep, MSG_STATFS_REP)

/* A client keeps its session alive with this; opens are kept in the server's memory,
 * and told again (all of them) to a server that has another epoch. */
#define MSG_OPEN_ROW(F) \
	F(u64, ino,    "inode")                                                 \
	F(u64, handle, "open handle")
MSG_DECLARE(open_row, MSG_OPEN_ROW)
#define MSG_SESSION(F) \
	F(uid,           client,  "client process")                             \
	F(u64,           epoch,   "of the server, as last told; 0: new here")   \
	F(list_open_row, opens,   "every open handle, when epoch has changed")  \
	F(u8,            more,    "1: further pages of opens follow")           \
	F(u8,            leaving, "1: ends the session and all its opens")      \
	F(u32,           via,     "node that passes it on to the leader; 0: none")
#define MSG_SESSION_REP(F) \
	F(u64, epoch,    "of this server's run; differs: tell all opens again") \
	F(u32, lease_ms, "session ends when not heard of for this long")       \
	F(list_open_row, gone, "of the opens told: those whose inode has gone") \
	F(u8,  ended,    "1: the session with the epoch asked for has ended")
MSG_DECLARE(session, MSG_SESSION)
MSG_DECLARE(session_rep, MSG_SESSION_REP)

/* ---- a frozen image of the tables, for `fsd check` ---- */
/* An image is of the tables right after one entry of the log, and is there on every member of
 * the group, under the index of that entry: so what members hold can be compared.  The leader
 * makes one; members are asked for it one by one.  One is kept at a time, until nobody has
 * asked for a while.  -ESTALE: it is gone, or the tables have moved on too far: begin again.
 * ERR_BUSY: that member is not there yet.  -EBUSY: none is made as long as somebody else reads
 * the one that is kept. */
#define MSG_IMAGE(F) \
	F(u64, image, "which image; 0: make one, of all that was answered before") \
	F(str, after, "key to go on after; empty: from the first")              \
	F(u64, index, "of an older release: not older than this entry; now it never is") \
	F(str, until, "last key of the range; empty: to the end")               \
	F(u8,  digest, "1: not the rows, but their digest and number, but for the member's own, which begin with a zero byte") \
	F(u64, instead, "when one is made: whoever asks has done with this one")
#define MSG_IMAGE_ROW(F) \
	F(str, key,   "as fsd-disk(5) says")                                    \
	F(str, value, "likewise")
MSG_DECLARE(image, MSG_IMAGE)
MSG_DECLARE(image_row, MSG_IMAGE_ROW)
#define MSG_IMAGE_REP(F) \
	F(u64,            image, "what to ask for next")                        \
	F(list_image_row, rows,  "in key order")                                \
	F(u8,             more,  "1: others follow in the range")                \
	F(u64,            digest, "of the rows of the range, when asked for")   \
	F(u64,            rows_n, "how many these are")
MSG_DECLARE(image_rep, MSG_IMAGE_REP)

/* A member whose rows differ from those of the others takes the leader's table; one that leads
 * hands over before.  Asked again until it is done.  -ESTALE: it has no such image, so nobody
 * can have compared it. */
#define MSG_RELOAD(F) \
	F(u64, image, "in which its rows were found to differ")
#define MSG_RELOAD_REP(F) \
	F(u8,  done,   "1: its table is that of the leader, as of that image or later") \
	F(u64, pieces, "that have come so far")
MSG_DECLARE(reload, MSG_RELOAD)
MSG_DECLARE(reload_rep, MSG_RELOAD_REP)

/* ---- rows that do not fit together, mended for `fsd check --repair` ---- */
/* Each row says what was seen in an image and what is to be done about it; the leader looks at
 * it again, and nothing is done that is not right by then.  No inode is
 * ever removed, and no entry that leads to one but when another entry does as well. */
enum meta_repair {
	META_REPAIR_NONE = 0,		/* answers -EBUSY */
	META_REPAIR_ROOT = 1,		/* make the root, or its parent itself */
	META_REPAIR_ENTRY = 2,		/* remove an entry: leads nowhere, or is in no directory */
	META_REPAIR_EXTRA = 3,		/* remove one of two entries of a directory: the
					 * other one is (value, keep) */
	META_REPAIR_KEY = 4,		/* put the entry where its name is looked up */
	META_REPAIR_TYPE = 5,		/* the entry's type becomes that of its inode */
	META_REPAIR_PARENT = 6,		/* the directory's parent is where its entry is */
	META_REPAIR_COUNTS = 7,		/* directory: size and nlink from its entries; when
					 * there are many of them: value and subdirs */
	META_REPAIR_LINKS = 8,		/* nlink of what is no directory becomes value */
	META_REPAIR_LOST = 9,		/* has no entry: gets one in lost+found */
	META_REPAIR_CYCLE = 10,		/* directory below itself: into lost+found */
	META_REPAIR_TARGET = 11,	/* size of a symlink; or its target, without one */
	META_REPAIR_PENDING = 12,	/* gc rows of an inode */
	META_REPAIR_COUNTERS = 13,	/* next inode is over value; inodes by subdirs more,
					 * if change is the number of repairs like this */
	META_REPAIR_DIRECTORY = 14	/* a directory has entries and no inode: it gets one,
					 * in parent if that is not 0 */
};
#define META_REPAIRS_MAX	64u	/* rows in one request */
#define MSG_REPAIR_ROW(F) \
	F(u8,  what,    "enum meta_repair")                                     \
	F(u64, ino,     "inode it is about")                                    \
	F(u64, parent,  "of an entry: its directory")                           \
	F(u64, hash,    "of an entry: as in its key")                           \
	F(str, name,    "of an entry: up to 255 bytes")                         \
	F(u64, change,  "of the inode, as it was seen: what was counted holds") \
	F(u64, value,   "names, entries, or a directory: see enum meta_repair") \
	F(i64, subdirs, "subdirectories; or more inodes")                       \
	F(str, keep,    "name of the entry that stays")
MSG_DECLARE(repair_row, MSG_REPAIR_ROW)
#define MSG_REPAIR(F) \
	F(ctx,             ctx,  "who asks: user 0")                            \
	F(list_repair_row, rows, "1..64")                                       \
	F(list_u32,        nodes, "metadata nodes that hold what this rests on, no other may work it out (-ESTALE); empty: any")
#define MSG_REPAIR_RESULT(F) \
	F(i32, rc, "0 it is right now; -ESTALE it is not as it was seen any more; -EBUSY its chunks are being removed; -EAGAIN not looked at, ask again; or why not")
MSG_DECLARE(repair, MSG_REPAIR)
MSG_DECLARE(repair_result, MSG_REPAIR_RESULT)
#define MSG_REPAIR_REP(F) \
	F(list_repair_result, results, "one for each row, same order")          \
	F(u64,                index,   "entry of the log that did it: an image of it or later shows it")
MSG_DECLARE(repair_rep, MSG_REPAIR_REP)

/*        id      name      request   reply         when sent again */
#define MSG_META_CALLS(X) \
	X(0x0201, lookup,   lookup,   entry_rep,    "harmless")                 \
	X(0x0202, getattr,  ino,      entry_rep,    "harmless")                 \
	X(0x0203, setattr,  setattr,  entry_rep,    "same seq, same reply")     \
	X(0x0204, create,   create,   entry_rep,    "same seq, same reply")     \
	X(0x0205, open,     open,     entry_rep,    "same handle, same open")   \
	X(0x0206, close,    sync,     entry_rep,    "same seq, same reply")     \
	X(0x0207, sync,     sync,     entry_rep,    "same seq, same reply")     \
	X(0x0208, mkdir,    mknod,    entry_rep,    "same seq, same reply")     \
	X(0x0209, mknod,    mknod,    entry_rep,    "same seq, same reply")     \
	X(0x020a, symlink,  symlink,  entry_rep,    "same seq, same reply")     \
	X(0x020b, readlink, ino,      readlink_rep, "harmless")                 \
	X(0x020c, link,     link,     entry_rep,    "same seq, same reply")     \
	X(0x020d, unlink,   name,     unlink_rep,   "same seq, same reply")     \
	X(0x020e, rmdir,    name,     unlink_rep,   "same seq, same reply")     \
	X(0x020f, rename,   rename,   unlink_rep,   "same seq, same reply")     \
	X(0x0210, readdir,  readdir,  readdir_rep,  "harmless")                 \
	X(0x0211, statfs,   ino,      statfs_rep,   "harmless")                 \
	X(0x0212, session,  session,  session_rep,  "harmless")                 \
	X(0x0213, meta_stats, none,   stats_rep,    "harmless")                 \
	X(0x0214, image,    image,    image_rep,    "harmless")                 \
	X(0x0215, repair,   repair,   repair_rep,   "same seq, same reply")     \
	X(0x0216, reload,   reload,   reload_rep,   "harmless")

#endif
