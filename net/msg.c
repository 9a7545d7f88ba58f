/* SPDX-License-Identifier: MIT */
/* msg.c - plain field types, lists, the arena; the rest is made by net/msg_define.h. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/err.h"
#include "net/msg_define.h"

/* ---- arena ---- */

struct msg_arena_block {
	struct msg_arena_block *next;
	_Alignas(16) char data[];
};

void
msg_arena_init(struct msg_arena *a, size_t max_bytes)
{
	a->blocks = NULL;
	a->p = a->first;
	a->end = a->first + sizeof(a->first);
	a->used_bytes = 0;
	a->max_bytes = max_bytes;
}

void
msg_arena_fini(struct msg_arena *a)
{
	while (a->blocks != NULL) {
		struct msg_arena_block *b = a->blocks;

		a->blocks = b->next;
		free(b);
	}
	msg_arena_init(a, a->max_bytes);
}

void *
msg_arena_get(struct msg_arena *a, size_t bytes)
{
	void *p;

	if (bytes > a->max_bytes)
		return NULL;
	bytes = (bytes + 15) & ~(size_t)15;
	if (a->used_bytes + bytes > ((a->max_bytes + 15) & ~(size_t)15))
		return NULL;
	if (bytes > (size_t)(a->end - a->p)) {
		/* Doubling: few blocks, and at most as much again is wasted. */
		size_t size = a->used_bytes < 4096 ? 4096 : a->used_bytes;
		struct msg_arena_block *b;

		if (size < bytes)
			size = bytes;
		if ((b = malloc(sizeof(*b) + size)) == NULL)
			return NULL;
		b->next = a->blocks;
		a->blocks = b;
		a->p = b->data;
		a->end = b->data + size;
	}
	p = a->p;
	a->p += bytes;
	a->used_bytes += bytes;
	return memset(p, 0, bytes);
}

/* ---- plain types: encode and decode ---- */

#define UNSIGNED(T, MAX)                                                        \
	void                                                                    \
	msg_put_##T(struct msgpack_writer *w, const void *v)                    \
	{                                                                       \
		msgpack_put_u64(w, *(const msg_t_##T *)v);                      \
	}                                                                       \
	void                                                                    \
	msg_get_##T(struct msgpack_reader *r, struct msg_arena *a, void *v)     \
	{                                                                       \
		(void)a;                                                        \
		*(msg_t_##T *)v = (msg_t_##T)msgpack_get_u64(r, MAX);           \
	}
UNSIGNED(u8, UINT8_MAX)
UNSIGNED(u16, UINT16_MAX)
UNSIGNED(u32, UINT32_MAX)
UNSIGNED(u64, UINT64_MAX)

#define SIGNED(T, MIN, MAX)                                                     \
	void                                                                    \
	msg_put_##T(struct msgpack_writer *w, const void *v)                    \
	{                                                                       \
		msgpack_put_i64(w, *(const msg_t_##T *)v);                      \
	}                                                                       \
	void                                                                    \
	msg_get_##T(struct msgpack_reader *r, struct msg_arena *a, void *v)     \
	{                                                                       \
		(void)a;                                                        \
		*(msg_t_##T *)v = (msg_t_##T)msgpack_get_i64(r, MIN, MAX);      \
	}
SIGNED(i32, INT32_MIN, INT32_MAX)
SIGNED(i64, INT64_MIN, INT64_MAX)

void
msg_put_uid(struct msgpack_writer *w, const void *v)
{
	msgpack_put_bin(w, v, sizeof(struct uid128));
}

void
msg_get_uid(struct msgpack_reader *r, struct msg_arena *a, void *v)
{
	uint32_t n;
	const void *p = msgpack_get_bytes(r, &n);

	(void)a;
	if (p != NULL && n == sizeof(struct uid128))
		memcpy(v, p, n);
	else
		msgpack_fail(r, ERR_BAD_MESSAGE, "id is not 16 bytes");
}

void
msg_put_chunk(struct msgpack_writer *w, const void *v)
{
	const struct chunk_id *c = v;

	msgpack_put_array(w, 2);
	msgpack_put_u64(w, c->ino);
	msgpack_put_u64(w, c->index);
}

void
msg_get_chunk(struct msgpack_reader *r, struct msg_arena *a, void *v)
{
	struct chunk_id *c = v;

	(void)a;
	if (msgpack_get_array(r) != 2)
		msgpack_fail(r, ERR_BAD_MESSAGE, "chunk id is not a pair");
	c->ino = msgpack_get_u64(r, UINT64_MAX);
	c->index = (uint32_t)msgpack_get_u64(r, UINT32_MAX);
}

void
msg_put_str(struct msgpack_writer *w, const void *v)
{
	const struct msg_str *s = v;

	msgpack_put_str(w, s->p, s->n);
}

void
msg_get_str(struct msgpack_reader *r, struct msg_arena *a, void *v)
{
	struct msg_str *s = v;

	(void)a;
	s->p = msgpack_get_bytes(r, &s->n);
}

/* ---- lists and the frame of a message ---- */

void
msg_put_items(struct msgpack_writer *w, const void *v, uint32_t n, size_t size,
    msg_put_fn *put)
{
	const char *item = v;

	msgpack_put_array(w, n);
	for (uint32_t i = 0; i < n && !w->failed; i++, item += size)
		put(w, item);
}

static bool
enter(struct msgpack_reader *r)
{
	if (r->depth >= MSG_DEPTH_MAX) {
		msgpack_fail(r, ERR_BAD_MESSAGE, "nested too deep");
		return false;
	}
	r->depth++;
	return true;
}

void *
msg_get_items(struct msgpack_reader *r, struct msg_arena *a, uint32_t *n,
    size_t size, msg_get_fn *get)
{
	uint32_t count = msgpack_get_array(r);	/* at most the bytes left */
	char *v;

	*n = 0;
	if (count == 0 || !enter(r))
		return NULL;
	if ((v = msg_arena_get(a, count * size)) == NULL) {
		msgpack_fail(r, -ENOMEM, "more list items than memory for them");
		return NULL;
	}
	for (uint32_t i = 0; i < count && r->rc == 0; i++)
		get(r, a, v + i * size);
	r->depth--;
	*n = count;
	return v;
}

uint32_t
msg_get_begin(struct msgpack_reader *r)
{
	return enter(r) ? msgpack_get_array(r) : 0;
}

void
msg_get_end(struct msgpack_reader *r, uint32_t n, uint32_t known)
{
	for (; n > known && r->rc == 0; n--)
		msgpack_skip(r);
	r->depth--;
}

int
msg_encode(const struct msg_type *t, const void *msg, void *out, size_t cap)
{
	struct msgpack_writer w;

	msgpack_writer_init(&w, out, cap < INT_MAX ? cap : INT_MAX);
	t->encode(&w, msg);
	return w.failed ? -EMSGSIZE : (int)msgpack_written(&w);
}

int
msg_decode(const struct msg_type *t, const void *in, size_t n,
    struct msg_arena *arena, void *msg, const char **why)
{
	struct msgpack_reader r;

	memset(msg, 0, t->size);
	msgpack_reader_init(&r, in, n);
	t->decode(&r, arena, msg);
	if (r.rc == 0 && msgpack_left(&r) > 0)
		msgpack_fail(&r, ERR_BAD_MESSAGE, "bytes after the message");
	if (r.rc != 0) {
		memset(msg, 0, t->size);	/* nobody uses half of one */
		if (why != NULL)
			*why = r.why;
	}
	return r.rc;
}

/* ---- text ---- */

static void __attribute__((format(printf, 3, 4)))
say(char **p, char *end, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(*p, (size_t)(end - *p), fmt, ap);
	va_end(ap);
	if (n > 0)
		*p += n < end - *p ? n : end - *p - 1;
}

void
msg_say_text(char **p, char *end, const char *s)
{
	while (*s != '\0' && end - *p > 1)
		*(*p)++ = *s++;
	**p = '\0';
}

#define SAY_NUMBER(T, FORMAT)                                                   \
	void                                                                    \
	msg_say_##T(char **p, char *end, const void *v)                         \
	{                                                                       \
		say(p, end, "%" FORMAT, *(const msg_t_##T *)v);                 \
	}
SAY_NUMBER(u8, PRIu8)
SAY_NUMBER(u16, PRIu16)
SAY_NUMBER(u32, PRIu32)
SAY_NUMBER(u64, PRIu64)
SAY_NUMBER(i32, PRId32)
SAY_NUMBER(i64, PRId64)

void
msg_say_uid(char **p, char *end, const void *v)
{
	char text[UID128_TEXT];

	uid128_text(v, text);
	msg_say_text(p, end, text);
}

void
msg_say_chunk(char **p, char *end, const void *v)
{
	const struct chunk_id *c = v;

	say(p, end, "%" PRIx64 ".%" PRIu32, c->ino, c->index);
}

/* In quotes; what could break a log line or a terminal is escaped. */
void
msg_say_str(char **p, char *end, const void *v)
{
	const struct msg_str *s = v;

	msg_say_text(p, end, "\"");
	for (uint32_t i = 0; i < s->n && end - *p > 1; i++) {
		unsigned char c = (unsigned char)s->p[i];

		if (c == '"' || c == '\\')
			say(p, end, "\\%c", c);
		else if (c >= 0x20 && c < 0x7f)
			say(p, end, "%c", c);
		else
			say(p, end, "\\x%02x", c);
	}
	msg_say_text(p, end, "\"");
}

void
msg_say_items(char **p, char *end, const void *v, uint32_t n, size_t size,
    msg_say_fn *fn)
{
	msg_say_text(p, end, "[");
	for (uint32_t i = 0; i < n && end - *p > 1; i++) {
		if (i > 0)
			msg_say_text(p, end, " ");
		fn(p, end, (const char *)v + i * size);
	}
	msg_say_text(p, end, "]");
}

void
msg_print(const struct msg_type *t, const void *msg, char *out, size_t cap)
{
	char *p = out, *end = out + cap;

	if (cap == 0)
		return;
	*p = '\0';
	t->print(&p, end, msg);
	/* The outermost braces say nothing. */
	if (p > out && out[0] == '{') {
		if (p[-1] == '}')
			*--p = '\0';
		memmove(out, out + 1, (size_t)(p - out));
	}
}

#define NOT_STATIC
MSG_DEFINE_LIST_(NOT_STATIC, u8)
MSG_DEFINE_LIST_(NOT_STATIC, u32)
MSG_DEFINE_LIST_(NOT_STATIC, u64)
MSG_DEFINE_LIST_(NOT_STATIC, uid)
MSG_DEFINE_LIST_(NOT_STATIC, chunk)
MSG_DEFINE_LIST_(NOT_STATIC, str)
