/* SPDX-License-Identifier: MIT */
/* metadata_impl.h - what the files of the metadata role share; nobody else includes it.
 *
 *	metadata.c		open, ready, stop, close
 *	metadata_call.c		requests to reads and commands, answers
 *	metadata_relay.c	requests passed on to the leader
 *	metadata_session.c	clients: leases, open files, who may cache
 *	metadata_members.c	who is in the group
 *	metadata_gc.c		truncations and removals against storage
 *	metadata_stripe.c	one question to every chain a file is striped over
 *	metadata_length.c	the end of a file, asked of storage
 *	metadata_image.c	the tables, for fsd check; a damaged one replaced
 *	metadata_repair.c	rows of theirs mended, for fsd check */
#ifndef ROLES_METADATA_IMPL_H
#define ROLES_METADATA_IMPL_H

#include "conf/map.h"
#include "meta/fs.h"
#include "meta/group.h"
#include "net/member.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "roles/metadata.h"
#include "roles/path.h"

#define METADATA_HELD_MAX	1024u	/* requests that wait for a lease to run out */
#define METADATA_WAIT_MAX	4096u	/* requests that wait for truncations */
#define METADATA_SETTLE_MAX	256u	/* requests that ask storage for an end */
#define METADATA_OPENS_MAX	(1u << 20)	/* open files of one client */
#define METADATA_SESSIONS_MAX	65536u
#define METADATA_OPS_KEEP	1024u	/* freed requests kept for reuse */

/* ---- one question to every chain of a stripe (metadata_stripe.c) ---- */

#define STRIPE_LANES	8u		/* chains asked at a time */

struct metadata_stripe;
typedef void metadata_stripe_fn(struct metadata_stripe *s, int rc);

struct metadata_lane {
	struct net_call		call;
	struct clock_timer	timer;
	struct metadata_stripe *s;
	struct path_way		way;	/* it was asked last */
	uint32_t		pos;	/* in the stripe */
	unsigned		tries;
	bool			busy;
};
struct metadata_stripe {
	struct metadata	   *m;
	/* in */
	ino_id		    ino;
	struct layout	    layout;
	bool		    last;	/* MSG_last; else MSG_cut with the next three */
	uint32_t	    index, keep, epoch;
	uint64_t	    deadline_ns;	/* give up then; 0: never */
	/* out: last */
	uint64_t	    end;	/* of the furthest chunk, bytes */
	/* its own */
	metadata_stripe_fn *fn;
	uint32_t	    next;	/* chain of the stripe not begun yet */
	unsigned	    busy;
	struct metadata_lane lanes[STRIPE_LANES];
};
/* Retries each chain until it answers.  fn runs once, never before this has returned: 0,
 * or after the deadline the last error. */
void	metadata_stripe_start(struct metadata_stripe *s, struct metadata *m,
	    metadata_stripe_fn *fn);
void	metadata_stripe_cancel(struct metadata_stripe *s);	/* idle: fine */

/* ---- one request ---- */

struct metadata_op {
	struct list	  all;		/* m->ops, or the free list */
	struct list	  wait;		/* held, or waiting for a truncation */
	struct metadata	 *m;
	struct net_req	 *req;
	struct group_req  gr;
	struct metadata_stripe *settle;	/* owned */
	uint8_t		  flags;	/* FS_LAST once storage was asked */
	uint32_t	  last_epoch;
	uint64_t	  last_end;
	bool		  changes;	/* a command of the log */
	uint64_t	  start_ns;
	bool		  answered;	/* rep is what is sent after the wait */
	struct msg_entry_rep rep;
};

/* ---- clients (metadata_session.c) ---- */

struct metadata_session {
	struct uid128	 client;
	struct metadata_session *same;	/* next one with this map key */
	struct list	 node;		/* by when it was heard of, or when it died */
	uint64_t	 heard_ns;
	uint64_t	 epoch;		/* what the client knows this session by */
	bool		 dead;		/* lease is over; opens stay for another */
	bool		 told;		/* it has told all its opens */
	bool		 served;	/* nobody else's cached copies are in its way */
	struct map	 opens;		/* handle -> inode */
};

/* A client whose session has ended, but whose records are kept for late retries. */
struct metadata_ghost {
	struct list   node;
	struct uid128 client;
	uint64_t      due_ns;
};

struct metadata_sessions {
	struct map	  by_client;
	struct list	  live, dead;	/* oldest first */
	unsigned	  n, live_n;
	uint32_t	  reign;	/* random, of this time of leading */
	uint32_t	  made;		/* sessions, from a random number on */
	struct map	  opens;	/* inode -> number of open handles */
	struct clock_timer timer;
	/* who may cache: grants were given to one client only, up to grant_end */
	struct uid128	  grant_to;
	uint64_t	  grant_end_ns;
	struct list	  held;		/* metadata_op */
	unsigned	  held_n;
	struct clock_timer hold_timer;
	struct clock_defer hold_defer;
	struct uid128	  holder;	/* as committed */
	struct uid128	  holder_next;	/* as proposed */
	bool		  proposing;
	struct group_req  holder_req;
	/* records of clients that have gone */
	struct list	  ghosts;	/* by due_ns */
	unsigned	  ghosts_n;
	bool		  scanning;	/* clients of earlier runs are being found */
	struct uid128	  scan_after;
	struct clock_timer ghost_timer;
	struct metadata_ghost *dropping;	/* taken off ghosts */
	struct group_req  drop_req;
};

void	metadata_session_init(struct metadata *m);
/* The group leads now. 0 or a table error. */
int	metadata_session_lead(struct metadata *m);
/* It does not any more: forget all clients, answer those that are held. */
void	metadata_session_depose(struct metadata *m);
/* @client has told all it has open: what we do not know of is closed. */
bool	metadata_session_told(const struct metadata *m, const struct uid128 *client);
/* After a time in which nobody was answered: the silence of then does not count. */
void	metadata_session_hears(struct metadata *m);
void	metadata_session_fini(struct metadata *m);
/* A request has come: 0 serve it; 1 it is held and comes back by metadata_dispatch();
 * or the error to answer. */
int	metadata_session_admit(struct metadata *m, struct metadata_op *op,
	    const struct uid128 *client);
/* How long may this client cache what it is told now. */
uint32_t metadata_session_grant(struct metadata *m, const struct uid128 *client);
/* 0; -ENFILE, -ENOMEM, ERR_SESSION.  The same handle twice is one open. */
int	metadata_session_open(struct metadata *m, const struct uid128 *client,
	    ino_id ino, uint64_t handle);
void	metadata_session_release(struct metadata *m, const struct uid128 *client,
	    uint64_t handle);
/* The inode this handle is open on, 0: none. */
ino_id	metadata_session_handle(struct metadata *m, const struct uid128 *client,
	    uint64_t handle);
bool	metadata_session_is_open(const struct metadata *m, ino_id ino);
/* MSG_session. */
void	metadata_session_serve(struct metadata_op *op);

/* ---- members (metadata_members.c) ---- */

/* Routing or leadership has changed: found the group, or drive its members. */
void	metadata_members_look(struct metadata *m);
/* All that this node has to do for now is to follow, or to wait to be taken in. */
bool	metadata_members_idle(const struct metadata *m);
/* For beats: the group that we are certain to lead. */
unsigned metadata_members_told(void *ctx, struct msg_group_status *rows, unsigned max);

/* ---- truncations and removals (metadata_gc.c) ---- */

struct metadata_gc;

int	metadata_gc_open(struct metadata *m);
void	metadata_gc_lead(struct metadata *m);
/* The group does not lead any more: its rows are another's to work on. */
void	metadata_gc_depose(struct metadata *m);
void	metadata_gc_close(struct metadata *m);
/* No more work is begun (the role stops). */
void	metadata_gc_stop(struct metadata *m);
/* Let @op wait until the truncation of @ino has settled; then it is answered with op->rep
 * (op->answered), or dispatched again.  0, ERR_BUSY, -ENOMEM. */
int	metadata_gc_wait(struct metadata *m, struct metadata_op *op, ino_id ino);
/* @ino has no name and is not open, perhaps: look at it. */
void	metadata_gc_look(struct metadata *m, ino_id ino);
/* Its chunks are going already. */
bool	metadata_gc_removing(const struct metadata *m, ino_id ino);
/* Begin no removals, once for each repair on its way; then look at all rows again. */
void	metadata_gc_hold(struct metadata *m, bool on);
/* Answer all that wait with @rc. */
void	metadata_gc_flush_waiters(struct metadata *m, int rc);

/* ---- lengths (metadata_length.c) ---- */

/* Ask storage for the end of the file that @op (sync or close) is about, then propose it
 * again; answers @op itself when that fails. */
void	metadata_length_settle(struct metadata_op *op);
/* Stop asking; answer with @rc. */
void	metadata_length_cancel(struct metadata_op *op, int rc);
/* Stop asking, if it does. */
void	metadata_length_drop(struct metadata_op *op);

/* ---- frozen images of the tables, members compared (metadata_image.c) ---- */

int	metadata_image_open(struct metadata *m);
/* Answer who waits for one: the role stops. */
void	metadata_image_stop(struct metadata *m);
void	metadata_image_close(struct metadata *m);
void	metadata_image_call(struct metadata *m, struct net_req *req);
void	metadata_reload_call(struct metadata *m, struct net_req *req);

/* ---- requests passed on (metadata_relay.c) ---- */

/* The node that the client asks to pass on @req; 0: none. */
node_id	metadata_via(const struct net_req *req);
/* A member of the group may pass on requests to us; 0: nobody did. */
bool	metadata_relay_from(const struct metadata *m, node_id via);
/* We do not lead, and the client asks us to pass @req on. */
void	metadata_relay_call(struct metadata *m, struct net_req *req);
/* All that are passed on are answered with @rc: we lead, or stop. */
void	metadata_relay_end(struct metadata *m, int rc);
void	metadata_relay_close(struct metadata *m);

/* ---- repairs (metadata_repair.c) ---- */

void	metadata_repair(struct metadata_op *op);

/* ---- the role (metadata.c) ---- */

#define METADATA_STATS(X) \
	X(counter, reads,       "requests answered from the tables")             \
	X(counter, changes,     "requests answered through the log")             \
	X(counter, repeats,     "changes that were done already")                \
	X(counter, held,        "requests that waited for a cache to run out")   \
	X(counter, relayed,     "requests passed on to the leader for clients that cannot reach it") \
	X(counter, settles,     "ends of files asked of storage")                \
	X(counter, removed,     "files whose chunks were removed")               \
	X(counter, repairs,     "rows mended for fsd check")                     \
	X(counter, truncations, "truncations brought to storage")                \
	X(gauge,   sessions,    "clients that have a session")                   \
	X(gauge,   open_files,  "files that are open")                           \
	X(gauge,   requests,    "requests in hand")                              \
	X(hist,    change_ns,   "time from request to reply, through the log")
STAT_DECLARE(metadata, METADATA_STATS)

struct metadata_images;

struct metadata {
	struct role_env	   env;
	struct clock	  *clock;
	const struct log  *log;
	struct disk_dir	  *dir;
	struct group	  *group;
	struct fs	  *fs;
	struct net_server *server;
	struct member	  *member;
	uint64_t	   start_ns;	/* since when clients can tell us their opens */
	bool		   leads;	/* log replayed, root there */
	bool		   fresh;	/* nobody has led before */
	bool		   deaf;	/* could not serve when we looked last */
	bool		   passed_on;	/* see metadata_pass_on() */
	bool		   known;	/* our group is the one in routing */
	bool		   told_lost, told_foreign;
	uint64_t	   voters[RAFT_MEMBERS_MAX], learners[RAFT_MEMBERS_MAX];
	int		   broken;	/* why the group has failed */
	/* told once */
	role_fn		  *ready;
	void		  *ready_ctx;
	role_fn		  *watch;	/* NULL: nobody, or was told */
	void		  *watch_ctx;
	struct group_req   init_req;
	struct clock_timer ready_timer, members_timer;
	role_fn		  *stopped;
	void		  *stop_ctx;
	bool		   stopping;
	struct clock_defer stop_defer;
	struct clock_timer stop_timer;	/* runs: the lead is being handed over */

	struct list	   ops, ops_free;
	unsigned	   ops_n, ops_free_n;
	unsigned	   settles;
	uint8_t		   cmd[FS_CMD_MAX];
	struct metadata_stat stat;
	struct stat_set	   stat_set;

	struct paths	   paths;	/* storage that does not answer us */
	struct list	   relays;	/* requests passed on to the leader */
	unsigned	   relays_n;
	struct clock_timer relay_timer;
	struct metadata_sessions sessions;
	struct metadata_gc *gc;
	struct metadata_images *images;
};

static inline uint64_t
metadata_now(const struct metadata *m)
{
	return clock_fresh(m->clock);	/* sessions and grants rest on it */
}
/* The group has begun or ceased to lead. */
void	metadata_lead(struct metadata *m, bool leads);
/* We have a lease and lead: clients are answered. */
bool	metadata_hears(struct metadata *m);
/* A row that somebody wants to read does not parse: another member may have it, so it is to
 * lead.  Once, until the table is another one: they may all have the same. */
bool	metadata_pass_on(struct metadata *m);
/* Tell that the role is ready, once it is. */
void	metadata_ready_check(struct metadata *m);
/* Serve @op, which was admitted. */
void	metadata_dispatch(struct metadata_op *op);
/* Stopping, and the last request has been answered. */
void	metadata_drained(struct metadata *m);
/* Of the listener. */
void	metadata_serve(void *ctx, struct net_req *req);
/* Propose what @op asks as a command. */
void	metadata_change(struct metadata_op *op);
/* Answer and forget @op. */
void	metadata_reply(struct metadata_op *op, int rc, const void *rep);
/* With the entry in op->rep, and how long it may be cached. */
void	metadata_reply_entry(struct metadata_op *op);
/* Who sent it. */
const struct uid128 *metadata_client(const struct metadata_op *op);

#endif
