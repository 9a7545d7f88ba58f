/* SPDX-License-Identifier: MIT */
/* check_impl.h - what the files of fsd check share; nobody else includes it.
 *
 *	check.c		routing, what is told, the end
 *	check_meta.c	the tables of metadata, and the tree in them
 *	check_chunks.c	the chunks of every chain */
#ifndef ROLES_CHECK_IMPL_H
#define ROLES_CHECK_IMPL_H

#include "conf/table.h"
#include "net/call.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "roles/check.h"

#define CHECK_ATTEMPT_NS	(5 * NS_PER_S)
#define CHECK_PAUSE_NS		(200 * NS_PER_MS)
#define CHECK_GIVE_UP_NS	(60 * NS_PER_S)	/* without any answer */
#define CHECK_SUSPECTS		4096u
#define CHECK_ROUNDS		4u		/* looks at a suspect, a pause apart */

struct check_chunks;

struct check {
	struct role_env	 env;
	struct net_addr	 managers[ROUTING_REPLICAS_MAX];
	unsigned	 manager_n, manager_at;
	bool		 repair, json;
	FILE		*to;
	role_fn		*done;
	void		*ctx;
	struct net_call	 call;		/* to a manager or to metadata */
	struct clock_timer timer;
	uint64_t	 heard_ns;	/* last answer */
	struct routing	*routing;
	void	       (*routed)(struct check *c);	/* once routing is new */
	/* metadata */
	struct table_store none;	/* below @table: nothing */
	struct table	*table;		/* the image, in memory */
	unsigned	 meta_at;
	unsigned	 restarts;
	uint64_t	 image;
	struct msg_str	 after;		/* owned copy: after.p is in after_key */
	char		 after_key[TABLE_KEY_MAX];
	ino_id		 next_ino;
	/* results */
	uint64_t	 inodes, chunks, faults, mended;
	struct check_chunks *chunk_walk;
};

/* ---- check.c ---- */
/* One fault, in words. */
void	check_fault(struct check *c, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
/* It was mended. */
void	check_mended(struct check *c, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
/* Get routing anew, then fn. */
void	check_route(struct check *c, void (*fn)(struct check *c));
/* Go on with fn after a pause; true: too long without any answer, give up. */
bool	check_silent(const struct check *c);
void	check_later(struct check *c, uint64_t ns, clock_timer_fn *fn);
/* 0: all was looked at; or why it cannot go on. */
void	check_end(struct check *c, int rc);

/* ---- check_meta.c: calls check_chunks_start() when done ---- */
void	check_meta_start(struct check *c);
void	check_meta_close(struct check *c);

/* ---- check_chunks.c: calls check_end() when done ---- */
void	check_chunks_start(struct check *c);
void	check_chunks_close(struct check *c);

#endif
