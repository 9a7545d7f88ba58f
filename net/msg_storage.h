/* SPDX-License-Identifier: MIT */
/* msg_storage.h - what clients, metadata and other replicas ask of a storage target.
 * Payloads travel as bulk (net/call.h), never inside a message. */
#ifndef NET_MSG_STORAGE_H
#define NET_MSG_STORAGE_H

#include "net/msg_core.h"

#define STORAGE_BATCH_MAX	64u		/* items in one read */
#define STORAGE_LIST_MAX	1024u		/* chunks in one list reply */

/* Read: at any replica.  Item i's bytes go to the offset in the asker's buffer that
 * is the sum of the lengths asked for before it. */
#define MSG_READ_ITEM(F) \
	F(chunk, chunk,  "inode and index")                                     \
	F(u32,   offset, "bytes from the start of the chunk")                   \
	F(u32,   len,    "bytes wanted, over 0")
MSG_DECLARE(read_item, MSG_READ_ITEM)
#define MSG_READ(F) \
	F(u32,            chain,         "chain id")                            \
	F(u32,            chain_version, "as the asker knows it")               \
	F(u32,            target,        "replica that is asked")               \
	F(list_read_item, items,         "1..64")
#define MSG_READ_RESULT(F) \
	F(i32, rc,      "0; -ENOENT no such chunk; or why it failed")           \
	F(u32, len,     "bytes sent; fewer than asked at the end of the chunk") \
	F(u64, version, "committed version they are of")                        \
	F(u32, crc,     "crc32c of those bytes")
MSG_DECLARE(read_result, MSG_READ_RESULT)
#define MSG_READ_REP(F) \
	F(list_read_result, items, "one for each asked, same order")
MSG_DECLARE(read, MSG_READ)
MSG_DECLARE(read_rep, MSG_READ_REP)

/* Write: at the head.  A client has one write at a time in flight for a chunk.
 * Who cannot reach the head sends this to another active replica of the chain and names
 * that as via; it goes on to the head as it is.  Cut, and last to the tail, likewise. */
#define MSG_WRITE(F) \
	F(u32,   chain,         "chain id")                                     \
	F(u32,   chain_version, "as the asker knows it")                        \
	F(u32,   target,        "the head's target")                            \
	F(uid,   client,        "sender; (client, seq) identifies a retry")     \
	F(u64,   seq,           "rises with every new write of this client")    \
	F(chunk, chunk,         "inode and index")                              \
	F(u8,    chunk_shift,   "log2 of the file's chunk size")                \
	F(u32,   epoch,         "truncation epoch of the inode")                \
	F(u32,   offset,        "bytes from the start of the chunk")            \
	F(u32,   len,           "bytes of payload, over 0")                     \
	F(u32,   crc,           "crc32c of the payload")                        \
	F(u32,   epoch_at,      "version of the chain that the asker knew when it asked for the epoch; 1: an older one; 0: not told") \
	F(u32,   via,           "replica that passes it on to the head; 0: none") \
	F(u64,   at,            "command of the metadata group by which the inode still had this epoch; 0: not told")
#define MSG_WRITE_REP(F) \
	F(u64, version, "committed version that holds it")                      \
	F(u32, len,     "length of the chunk now")
MSG_DECLARE(write, MSG_WRITE)
MSG_DECLARE(write_rep, MSG_WRITE_REP)

/* Update: from a replica to its successor. */
enum update_kind {
	UPDATE_WRITE = 1,	/* payload at offset, zeros before it if past the end */
	UPDATE_TRUNCATE = 2,	/* to offset bytes; never longer; epoch is raised */
	UPDATE_REMOVE = 3,
	UPDATE_REPLACE = 4	/* payload is the whole chunk, whatever was there */
};
/* An update comes from the predecessor and is passed on.  To a SYNCING replica it is a
 * forced REPLACE or REMOVE, and none of its errors says anything.
 *
 * Errors after which nothing of the version is, or will be, at this replica or behind it,
 * as far as this attempt goes: -ENOSPC, -EINVAL, ERR_PAYLOAD_CRC.  After any other the
 * version may be there: the sender must send the same version again. */
/* Last answered write of one client, kept with the chunk. */
#define MSG_DEDUPE(F) \
	F(uid, client,  "sender")                                               \
	F(u64, seq,     "its sequence number")                                  \
	F(u64, version, "version its write became")
MSG_DECLARE(dedupe, MSG_DEDUPE)
#define MSG_UPDATE(F) \
	F(u32,         chain,         "chain id")                               \
	F(u32,         chain_version, "as the sender knows it")                 \
	F(u32,         target,        "the successor's target")                 \
	F(chunk,       chunk,         "inode and index")                        \
	F(u8,          chunk_shift,   "log2 of the file's chunk size")          \
	F(u8,          kind,          "enum update_kind")                       \
	F(u32,         epoch,         "truncation epoch of the inode")          \
	F(u64,         version,       "version this becomes")                   \
	F(u32,         offset,        "bytes from the start of the chunk")      \
	F(u32,         len,           "bytes of payload")                       \
	F(u32,         crc,           "crc32c of the payload")                  \
	F(uid,         client,        "whose write it is; zero: none")          \
	F(u64,         seq,           "and its number")                         \
	F(list_dedupe, dedupe,        "replace: the whole list")                \
	F(u64,         base,          "committed version it builds on, 0: none") \
	F(u64,         attempt,       "rises with every update a sender sends") \
	F(u64,         floor,         "attempts below it are over, for all chunks") \
	F(u64,         fence,         "attempts at this chunk below it were given up: refuse them") \
	F(u32,         check,         "force: digest of bytes and remembered writers") \
	F(u8,          force,         "1, to a SYNCING replica: whatever you hold") \
	F(list_u32,    sums,          "force, replace by a damaged chunk: the checksums its " \
	    "blocks should have")
#define MSG_UPDATE_REP(F) \
	F(u64, version, "version now committed below")                          \
	F(u32, len,     "length of the chunk now")                              \
	F(u32, check,   "crc32c over the chunk's block checksums")
MSG_DECLARE(update, MSG_UPDATE)
MSG_DECLARE(update_rep, MSG_UPDATE_REP)

/* Dirty read: which version of a chunk has the tail committed. */
#define MSG_COMMITTED(F) \
	F(u32,   chain,         "chain id")                                     \
	F(u32,   chain_version, "as the asker knows it")                        \
	F(u32,   target,        "the tail's target")                            \
	F(chunk, chunk,         "inode and index")
#define MSG_COMMITTED_REP(F) \
	F(u64, version, "0: the chunk is not there")
MSG_DECLARE(committed, MSG_COMMITTED)
MSG_DECLARE(committed_rep, MSG_COMMITTED_REP)

/* Cut: truncate or remove the chunks of an inode on one chain; at the head, from
 * metadata.  Chunks > index go; chunk index is cut to keep bytes (0: it goes too).
 * Only chunks of an older epoch are touched, so a repeat does no harm.  Works on at
 * most max chunks and says whether more are left. */
#define MSG_CUT(F) \
	F(u32, chain,         "chain id")                                       \
	F(u32, chain_version, "as the asker knows it")                          \
	F(u32, target,        "the head's target")                              \
	F(u64, ino,           "inode")                                          \
	F(u32, index,         "first chunk that is touched")                    \
	F(u32, keep,          "bytes of that chunk that stay")                  \
	F(u32, epoch,         "new epoch; all ones: the inode is gone")         \
	F(u32, max,           "most chunks in one call")                        \
	F(u32, via,           "replica that passes it on to the head; 0: none") \
	F(u64, at,            "command of the metadata group by which the inode had the epoch; 0: not told")
#define MSG_CUT_REP(F) \
	F(u32, chunks, "how many were touched")                                 \
	F(u8,  more,   "1: call again")
MSG_DECLARE(cut, MSG_CUT)
MSG_DECLARE(cut_rep, MSG_CUT_REP)

/* Last chunk of an inode on one chain, at the tail: settles a length. */
#define MSG_LAST(F) \
	F(u32, chain,         "chain id")                                       \
	F(u32, chain_version, "as the asker knows it")                          \
	F(u32, target,        "the tail's target")                              \
	F(u64, ino,           "inode")                                          \
	F(u32, via,           "replica that passes it on to the tail; 0: none")
#define MSG_LAST_REP(F) \
	F(u8,  found, "1: there is one")                                        \
	F(u32, index, "its index")                                              \
	F(u32, len,   "its length, bytes")
MSG_DECLARE(last, MSG_LAST)
MSG_DECLARE(last_rep, MSG_LAST_REP)

/* List: the chunks of a SYNCING replica, for the reading tail.  Fetch: a version that the
 * asker could not store and its successors hold, or whose bytes are damaged at the asker. */
#define MSG_LIST(F) \
	F(u32,   chain,         "chain id")                                     \
	F(u32,   chain_version, "as the asker knows it")                        \
	F(u32,   target,        "replica that is asked")                        \
	F(u8,    start,         "1: from the first chunk; else after the one named") \
	F(chunk, after,         "last chunk of the page before")                \
	F(u32,   max,           "most rows, at most 1024")
#define MSG_LIST_ROW(F) \
	F(chunk, chunk,     "inode and index")                                  \
	F(u64,   committed, "committed version, 0: none")                       \
	F(u64,   pending,   "pending version, 0: none")                         \
	F(u32,   len,       "length of the newest version")                     \
	F(u32,   check,     "crc32c over the newest version's block checksums") \
	F(u8,    removed,   "1: the newest version is a removal")
MSG_DECLARE(list_row, MSG_LIST_ROW)
#define MSG_LIST_REP(F) \
	F(list_list_row, rows, "in key order")                                  \
	F(u8,            more, "1: another page follows")
MSG_DECLARE(list, MSG_LIST)
MSG_DECLARE(list_rep, MSG_LIST_REP)
#define MSG_FETCH(F) \
	F(u32,   chain,         "chain id")                                     \
	F(u32,   chain_version, "as the asker knows it")                        \
	F(u32,   target,        "replica that is asked")                        \
	F(chunk, chunk,         "inode and index")                              \
	F(u64,   version,       "which version, pending or committed")          \
	F(u64,   floor,         "from the predecessor: as in update")           \
	F(u64,   fence,         "likewise; 0: another replica asks, for a repair") \
	F(u8,    anyhow,        "1: with damaged blocks, as they are")
#define MSG_FETCH_REP(F) \
	F(u64,         version,     "version of the bytes")                     \
	F(u8,          chunk_shift, "log2 of the file's chunk size")            \
	F(u32,         epoch,       "truncation epoch")                         \
	F(u32,         len,         "bytes of payload: the whole chunk")        \
	F(u32,         crc,         "crc32c of the payload")                    \
	F(list_dedupe, dedupe,      "answered writes kept with it")             \
	F(u32,         bad,         "anyhow: blocks of it that are damaged")
MSG_DECLARE(fetch, MSG_FETCH)
MSG_DECLARE(fetch_rep, MSG_FETCH_REP)

/* Mend: a replica takes its committed version of a chunk from another one, whatever it holds
 * under that version; for `fsd check`. */
#define MSG_MEND(F) \
	F(u32,   chain,         "chain id")                                     \
	F(u32,   chain_version, "as the asker knows it")                        \
	F(u32,   target,        "replica that is wrong")                        \
	F(chunk, chunk,         "inode and index")                              \
	F(u64,   version,       "committed version, of both")                   \
	F(u32,   from,          "target that is right")
MSG_DECLARE(mend, MSG_MEND)

/*        id      name       request    reply          when sent again */
#define MSG_STORAGE_CALLS(X) \
	X(0x0301, read,      read,      read_rep,      "harmless")              \
	X(0x0302, write,     write,     write_rep,     "same seq, same reply")  \
	X(0x0303, update,    update,    update_rep,    "same version, same reply") \
	X(0x0304, committed, committed, committed_rep, "harmless")              \
	X(0x0305, cut,       cut,       cut_rep,       "harmless")              \
	X(0x0306, last,      last,      last_rep,      "harmless")              \
	X(0x0307, list,      list,      list_rep,      "harmless")              \
	X(0x0308, fetch,     fetch,     fetch_rep,     "harmless")              \
	X(0x0309, storage_stats, none,  stats_rep,     "harmless")              \
	X(0x030a, mend,      mend,      none,          "harmless")

#endif
