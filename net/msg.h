/* SPDX-License-Identifier: MIT */
/* msg.h - messages are rows: struct, codec, printer and documentation from one list.
 *
 *	#define MSG_PING(F)                                     \
 *		F(u32,      wait_ms, "longest pause")           \
 *		F(list_u64, seen,    "what was seen before")
 *	MSG_DECLARE(ping, MSG_PING)		in the header
 *	MSG_DEFINE(ping, MSG_PING)		in net/msg_table.c
 *
 * gives struct msg_ping, and msg_type_ping with which the calls below encode,
 * decode and print it; list_ping is then a field type too.  On the wire a message is a
 * msgpack array in row order; rows are only ever added at the end, missing rows read
 * as zero, unknown ones are skipped.
 *
 * Field types: u8 u16 u32 u64 i32 i64, uid (struct uid128; 16 bytes of bin), chunk
 * (struct chunk_id; array of inode and index), str (struct msg_str: bytes, no
 * terminator), list_T of any of them or of a declared message, and a declared message
 * itself (nested). */
#ifndef NET_MSG_H
#define NET_MSG_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "conf/ids.h"

#define MSG_DEPTH_MAX	8	/* nested messages and lists */

/* Bytes with a length; borrowed.  Used for names, addresses and small blobs. */
struct msg_str {
	const char *p;
	uint32_t    n;
};

typedef uint8_t		msg_t_u8;
typedef uint16_t	msg_t_u16;
typedef uint32_t	msg_t_u32;
typedef uint64_t	msg_t_u64;
typedef int32_t		msg_t_i32;
typedef int64_t		msg_t_i64;
typedef struct uid128	msg_t_uid;
typedef struct chunk_id	msg_t_chunk;
typedef struct msg_str	msg_t_str;

/* A list: @n items at @v; borrowed by an encoder, in the arena after a decode. */
#define MSG_DECLARE_LIST(T) \
	typedef struct { msg_t_##T *v; uint32_t n; } msg_t_list_##T;
MSG_DECLARE_LIST(u8)
MSG_DECLARE_LIST(u32)
MSG_DECLARE_LIST(u64)
MSG_DECLARE_LIST(uid)
MSG_DECLARE_LIST(chunk)
MSG_DECLARE_LIST(str)

struct msgpack_writer;
struct msgpack_reader;

/* Bounded bump allocator for what a decoded message points to. */
#define MSG_ARENA_INLINE 256u	/* bytes that need no allocation */
struct msg_arena {
	struct msg_arena_block *blocks;	/* newest first; each as big as those before */
	char  *p, *end;			/* what is free in the newest */
	size_t used_bytes, max_bytes;	/* handed out, and the bound of that */
	_Alignas(16) char first[MSG_ARENA_INLINE];
};
/* The arena points into itself: do not copy it. */
void	 msg_arena_init(struct msg_arena *a, size_t max_bytes);
void	 msg_arena_fini(struct msg_arena *a);
/* Zeroed, 16-aligned; NULL over the bound or when memory is out. */
void	*msg_arena_get(struct msg_arena *a, size_t bytes);

/* One message kind, made by MSG_DEFINE. */
struct msg_type {
	const char *name;
	size_t	    size;		/* of its struct */
	void	  (*encode)(struct msgpack_writer *, const void *msg);
	void	  (*decode)(struct msgpack_reader *, struct msg_arena *, void *msg);
	/* Appends "{name=value ...}" to the text at *p, short of @end. */
	void	  (*print)(char **p, char *end, const void *msg);
	const struct msg_row {
		const char *type, *name, *help;
	} *rows;			/* ends with a NULL name */
};

#define MSG_DECLARE(NAME, ROWS)                                 \
	struct msg_##NAME {                                     \
		ROWS(MSG_DECLARE_FIELD_)                        \
	};                                                      \
	typedef struct msg_##NAME msg_t_##NAME;                 \
	MSG_DECLARE_LIST(NAME)                                  \
	extern const struct msg_type msg_type_##NAME;
#define MSG_DECLARE_FIELD_(type, name, help) msg_t_##type name;

/* Encode @msg into @out.  Returns its bytes (0..cap) or -EMSGSIZE. */
int	msg_encode(const struct msg_type *t, const void *msg, void *out,
	    size_t cap);
/* Decode exactly @n bytes into @msg (zeroed first).  Strings point into @in, lists
 * into @arena; both must outlive @msg.  0, ERR_BAD_MESSAGE (@why, when not NULL, says
 * what in static text) or -ENOMEM over the arena's bound. */
int	msg_decode(const struct msg_type *t, const void *in, size_t n,
	    struct msg_arena *arena, void *msg, const char **why);
/* "name=value ..." into @out, cut to @cap, always terminated. */
void	msg_print(const struct msg_type *t, const void *msg, char *out,
	    size_t cap);

/* A call: its id on the wire, request and reply.  Rows of MSG_*_CALLS in
 * msg_manager.h, msg_meta.h and msg_storage.h; X(id, name, request, reply, retry)
 * gives MSG_name (net/msg_all.h) and a row of the table behind msg_method(). */
struct msg_method {
	uint16_t	       id;
	const char	      *service, *name;
	const struct msg_type *request, *reply;
	const char	      *retry;	/* what sending it again means */
};
/* NULL when there is none. */
const struct msg_method *msg_method(uint16_t id);
/* Walk all calls, and all messages: i = 0.. until NULL. */
const struct msg_method *msg_method_at(unsigned i);
const struct msg_type *msg_type_at(unsigned i);

static inline struct msg_str
msg_str(const char *s)
{
	return (struct msg_str){ s, (uint32_t)strlen(s) };
}

#endif
