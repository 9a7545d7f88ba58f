/* SPDX-License-Identifier: MIT */
/* msg_define.h - MSG_DEFINE: the code of one message from its rows.  Included by
 * net/msg_table.c, and by tests that have messages of their own.
 *
 * Every field type T has three functions that take its values by address:
 *	msg_put_T(writer, value)		encode
 *	msg_get_T(reader, arena, value)		decode; the value is zero before
 *	msg_say_T(text, end, value)		print
 * Those of the plain types are in net/msg.c; MSG_DEFINE(NAME, ROWS) makes those of NAME
 * and list_NAME, as straight code, one call a row. */
#ifndef NET_MSG_DEFINE_H
#define NET_MSG_DEFINE_H

#include <stdbool.h>

#include "net/msg.h"
#include "net/msgpack.h"

typedef void msg_put_fn(struct msgpack_writer *, const void *);
typedef void msg_get_fn(struct msgpack_reader *, struct msg_arena *, void *);
typedef void msg_say_fn(char **, char *, const void *);

#define MSG_TYPE_FUNCTIONS_(T) \
	msg_put_fn msg_put_##T; msg_get_fn msg_get_##T; msg_say_fn msg_say_##T;
#define MSG_PLAIN_TYPES(X) \
	X(u8) X(u16) X(u32) X(u64) X(i32) X(i64) X(uid) X(chunk) X(str)
#define MSG_PLAIN_LISTS(X) \
	X(list_u8) X(list_u32) X(list_u64) X(list_uid) X(list_chunk) X(list_str)
MSG_PLAIN_TYPES(MSG_TYPE_FUNCTIONS_)
MSG_PLAIN_LISTS(MSG_TYPE_FUNCTIONS_)

/* ---- what the generated code calls ---- */
void	msg_put_items(struct msgpack_writer *w, const void *v, uint32_t n,
	    size_t size, msg_put_fn *put);
/* The items in the arena and *n; NULL when there are none or on failure. */
void   *msg_get_items(struct msgpack_reader *r, struct msg_arena *a, uint32_t *n,
	    size_t size, msg_get_fn *get);
void	msg_say_items(char **p, char *end, const void *v, uint32_t n, size_t size,
	    msg_say_fn *say);
/* Rows that are in the message that starts here; end with msg_get_end(). */
uint32_t msg_get_begin(struct msgpack_reader *r);
/* Pass over the rows from @known on that only the sender knows. */
void	msg_get_end(struct msgpack_reader *r, uint32_t n, uint32_t known);
void	msg_say_text(char **p, char *end, const char *s);

#define MSG_DEFINE_LIST_(STORE, T)                                              \
	STORE void                                                              \
	msg_put_list_##T(struct msgpack_writer *w, const void *value)           \
	{                                                                       \
		const msg_t_list_##T *l = value;                                \
		msg_put_items(w, l->v, l->n, sizeof(*l->v), msg_put_##T);       \
	}                                                                       \
	STORE void                                                              \
	msg_get_list_##T(struct msgpack_reader *r, struct msg_arena *a,         \
	    void *value)                                                        \
	{                                                                       \
		msg_t_list_##T *l = value;                                      \
		l->v = msg_get_items(r, a, &l->n, sizeof(*l->v), msg_get_##T);  \
	}                                                                       \
	STORE void                                                              \
	msg_say_list_##T(char **p, char *end, const void *value)                \
	{                                                                       \
		const msg_t_list_##T *l = value;                                \
		msg_say_items(p, end, l->v, l->n, sizeof(*l->v), msg_say_##T);  \
	}

#define MSG_ROW_COUNT_(type, name, help) + 1
#define MSG_ROW_PUT_(type, name, help) msg_put_##type(w, &m->name);
#define MSG_ROW_GET_(type, name, help) \
	if (row++ < n) \
		msg_get_##type(r, a, &m->name);
#define MSG_ROW_SAY_(type, name, help) \
	msg_say_text(p, end, #name "="); \
	msg_say_##type(p, end, &m->name); \
	msg_say_text(p, end, " ");
#define MSG_ROW_HELP_(type, name, help) { #type, #name, help },

#define MSG_UNUSED_STATIC_ __attribute__((unused)) static
#define MSG_DEFINE(NAME, ROWS)                                                  \
	static void                                                             \
	msg_put_##NAME(struct msgpack_writer *w, const void *value)             \
	{                                                                       \
		const struct msg_##NAME *m = value;                             \
		msgpack_put_array(w, 0 ROWS(MSG_ROW_COUNT_));                   \
		ROWS(MSG_ROW_PUT_)                                              \
	}                                                                       \
	static void                                                             \
	msg_get_##NAME(struct msgpack_reader *r, struct msg_arena *a,           \
	    void *value)                                                        \
	{                                                                       \
		struct msg_##NAME *m = value;                                   \
		uint32_t n = msg_get_begin(r), row = 0;                         \
		(void)a;                                                        \
		ROWS(MSG_ROW_GET_)                                              \
		msg_get_end(r, n, row);                                         \
	}                                                                       \
	static void                                                             \
	msg_say_##NAME(char **p, char *end, const void *value)                  \
	{                                                                       \
		const struct msg_##NAME *m = value;                             \
		char *start = *p;                                               \
		msg_say_text(p, end, "{");                                      \
		ROWS(MSG_ROW_SAY_)                                              \
		if (*p > start && (*p)[-1] == ' ')	/* after the last row */ \
			--*p;                                                   \
		msg_say_text(p, end, "}");                                      \
	}                                                                       \
	MSG_DEFINE_LIST_(MSG_UNUSED_STATIC_, NAME)                              \
	const struct msg_type msg_type_##NAME = {                               \
		.name = #NAME,                                                  \
		.size = sizeof(struct msg_##NAME),                              \
		.encode = msg_put_##NAME,                                       \
		.decode = msg_get_##NAME,                                       \
		.print = msg_say_##NAME,                                        \
		.rows = (const struct msg_row[]){                               \
			ROWS(MSG_ROW_HELP_) { NULL, NULL, NULL }                \
		},                                                              \
	};

#endif
