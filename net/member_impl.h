/* SPDX-License-Identifier: MIT */
/* member_impl.h - what net/member.c (who is asked, and the end of it), net/member_beat.c (presence
 * and the lease) and net/member_routing.c (poll and refresh) share.  Nobody else includes this. */
#ifndef NET_MEMBER_IMPL_H
#define NET_MEMBER_IMPL_H

#include <stdatomic.h>

#include "net/member.h"
#include "net/msg_all.h"

#define CALL_MS		2000u	/* refresh, a client's beat */
#define PATIENCE_MS	500u	/* without an answer: another manager is asked, too */
#define BACKOFF_MAX_MS	2000u
#define NOWHERE		MEMBER_MANAGERS_MAX

enum member_state { SEEKING, JOINED, LEAVING };

/* One call, again and again. */
struct asker {
	struct member	  *m;
	struct net_call	   call;
	struct clock_timer timer;	/* of beats[]: not used */
	uint64_t	   sent_ns;
	unsigned	   to;		/* manager it was sent to */
	unsigned	   failures;	/* in a row; of beats[]: not used */
};

/* A lease that counts from some routing version on. */
struct grant {
	uint64_t until_ns;		/* 0: none */
	uint64_t routing;
};

struct member {
	struct member_conf conf;	/* its pointers are ours */
	struct net_addr	   managers[MEMBER_MANAGERS_MAX];
	char		  *name, *mount;
	char		 (*addrs)[NET_ADDR_TEXT];
	struct routing	  *routing;

	enum member_state  state;
	struct asker	   beats[2];	/* presence */
	unsigned	   newest;	/* of them, the one sent last */
	struct clock_timer presence_timer;
	bool		   due;		/* presence, as soon as a call has ended */
	unsigned	   failures;	/* of presence, in a row */
	struct asker	   poll, refresh;
	bool		   refresh_wanted;
	unsigned	   manager;	/* the one that is asked */
	unsigned	   found;	/* 1 + the one that last answered; 0: none */
	int		   last_rc;	/* so that a failure is logged once, */
	uint64_t	   logged_ns;	/* and changing ones not too often */

	node_id		   node;
	uint32_t	   lease_ms, beat_ms;
	_Atomic uint64_t   lease_until_ns, lease_routing;
	struct grant	   held, newest_held; /* the first, and the last one after it */
	uint64_t	   told_version; /* of routing, by the last beat */
	uint64_t	   total_bytes, used_bytes;

	struct clock_defer changed;
	struct clock_defer left;
	void		 (*leave_fn)(void *);
	void		  *leave_ctx;
	uint64_t	   leave_ns;	/* no goodbye after that */
	unsigned	   leave_tries;
};

static inline uint64_t
member_now(const struct member *m)
{
	return clock_now(m->conf.clock);
}

/* ---- net/member.c ---- */

void	member_tell_changed(struct member *m);
/* Pause before attempt number @failures + 1: none until all managers have been asked,
 * then longer with every round; half of it is random, so that a restarted manager is not
 * met by everybody at once. */
uint64_t member_backoff_ns(const struct member *m, unsigned failures, uint64_t max_ms);
/* Invariant 3: only who was sent to the manager of today moves on from it. */
void	member_try_next(struct member *m, const struct asker *a);
void	member_note_failure(struct member *m, struct asker *a, const char *what, int rc);
/* @a was answered by who leads, or says so. */
void	member_note_success(struct member *m, struct asker *a);
/* Send, or fail as the call would.  Returns 0 when @fn will run. */
int	member_ask(struct member *m, struct asker *a, uint16_t method, const void *req,
	    uint64_t within_ms, net_call_fn *fn);
void	member_stop(struct asker *a);

/* ---- net/member_beat.c ---- */

void	member_presence_at(struct member *m, uint64_t at_ns);
void	member_lease_lost(struct member *m);
/* Our routing is newer than it was. */
void	member_lease_catch_up(struct member *m);
int	member_client_beat_send(struct member *m, struct asker *a, uint8_t leaving,
	    uint64_t within_ms, net_call_fn *fn);

/* ---- net/member_routing.c ---- */

void	member_poll_at(struct member *m, uint64_t at_ns);
/* Routing comes from the one that leads now, and what failed elsewhere need not wait. */
void	member_follow(struct member *m);

#endif
