/* SPDX-License-Identifier: MIT */
/* check_impl.h - what the files of fsd check share; nobody else includes it.
 *
 *	check.c		routing, what is told, one step after the other, the end
 *	check_image.c	the tables of metadata, read into memory
 *	check_compare.c	those of the other members, against them
 *	check_heal.c	a member that differs takes the table of the others
 *	check_meta.c	the tree in them, and what would mend it
 *	check_mend.c	metadata is asked to mend it
 *	check_chunks.c	the chunks of every chain
 *	check_suspect.c	those that look wrong, again
 *	check_differs.c	replicas that differ made the same */
#ifndef ROLES_CHECK_IMPL_H
#define ROLES_CHECK_IMPL_H

#include "conf/list.h"
#include "conf/map.h"
#include "conf/table.h"
#include "net/call.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "roles/check.h"

#define CHECK_RESTARTS		20u	/* of an image that went stale, or died with its server */
#define CHECK_ATTEMPT_NS	(5 * NS_PER_S)
#define CHECK_PAUSE_NS		(200 * NS_PER_MS)
#define CHECK_GIVE_UP_NS	(60 * NS_PER_S)	/* without any answer */
#define CHECK_SUSPECTS		4096u
#define CHECK_ROUNDS		4u		/* looks at a suspect, a pause apart */
#define CHECK_FIXES_MAX		65536u		/* done after one look at the tree */
#define CHECK_LOOKS_MAX		16u		/* at the tree, repairs between them */

struct check_chunks;
struct check_run;

/* What mends one fault of the tree. */
struct check_fix {
	struct list	node;
	struct msg_repair_row row;	/* its names are behind */
	bool		may_have_data;
	bool		told;
	uint64_t	number;		/* as it is told */
	char		names[];
};

/* A member of the metadata group. */
struct check_member {
	struct check	*c;
	node_id		 node;
	struct net_addr	 addr;
	struct net_call	 call;
	bool		 source;	/* the image is read from it */
	bool		 answered;	/* about this range */
	bool		 lost;		/* it cannot be compared */
	bool		 odd;		/* it differs from most of them */
	bool		 told, mended;	/* as a fault; and as mended */
	int		 rc;
	uint64_t	 digest, rows_n, heard_ns;
	bool		 more;
};

/* Rows of the image behind one key, up to another one. */
struct check_range {
	uint8_t	 after[TABLE_KEY_MAX], until[TABLE_KEY_MAX];
	uint32_t after_n, until_n;	/* until: 0: all that follow */
	uint64_t digest, rows_n;	/* as the source has them */
	bool	 more;			/* other ranges follow */
};

struct check {
	struct role_env	 env;
	struct net_addr	 managers[ROUTING_REPLICAS_MAX];
	unsigned	 manager_n, manager_at;
	struct check_how how;
	FILE		*to;
	role_fn		*done;
	void		*ctx;
	struct net_call	 call;		/* to a manager or to metadata */
	struct clock_timer timer;
	uint64_t	 heard_ns;	/* last answer of anybody */
	struct routing	*routing;
	void	       (*routed)(struct check *c);	/* once routing is new */
	int		 rc;		/* how it ends */
	/* metadata */
	unsigned	 meta_at;	/* which server is asked */
	uint64_t	 meta_ns;	/* its last answer, or when it was to be asked */
	struct table	*table;		/* the image, in memory */
	struct check_run *run;		/* what is below @table; the table's */
	unsigned	 restarts;
	uint64_t	 image;
	uint64_t	 instead;	/* the last one, done with */
	bool		 waits;		/* for another check, which reads */
	uint64_t	 index;		/* of the last repair: an image has to show it */
	struct msg_str	 after;		/* owned copy: after.p is in after_key */
	char		 after_key[TABLE_KEY_MAX];
	ino_id		 next_ino;
	/* members */
	struct check_member members[ROUTING_MEMBERS_MAX];
	unsigned	 member_n;	/* 0: not known, nobody is compared */
	unsigned	 asking;
	struct check_range range;
	unsigned	 naming;	/* member whose rows are being named */
	unsigned	 named;		/* rows */
	bool		 undecided;	/* members differ, and most of them do not agree */
	bool		 undecided_told;
	bool		 distrust;	/* most members are not known to hold what the image says */
	uint64_t	 heal_number;	/* of the repair */
	unsigned	 heal_rounds;
	uint64_t	 heal_pieces, heal_ns;	/* progress, and when */
	bool		 healed;	/* one at least: look again */
	/* repairs of metadata */
	struct list	 fixes;		/* check_fix, in the order they are done */
	unsigned	 fix_n, sent_n;
	struct list	 sent;		/* those in the request on its way */
	struct msg_repair_row rows[META_REPAIRS_MAX];
	struct uid128	 client;
	uint64_t	 seq;		/* of the last request */
	unsigned	 look;		/* at the tree, from 0 */
	uint64_t	 fixed;		/* repairs done since the last look */
	struct map	 nameless;	/* inodes that entries lead to and are not there: a
					 * character of @seen_data */
	bool		 blind;		/* some chunks could not be looked at */
	/* results */
	uint64_t	 inodes, chunks;
	uint64_t	 tree_faults, tree_left;	/* at the first look, and the last */
	uint64_t	 faults, mended;		/* of chunks */
	uint64_t	 repairs;			/* told */
	struct check_chunks *chunk_walk;
};

/* ---- check.c ---- */
/* One fault, in words. */
void	check_fault(struct check *c, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
/* One that is still there after repairs. */
void	check_still(struct check *c, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
/* Why nothing is done about one. */
void	check_note(struct check *c, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
/* What is about to be done; its number. */
uint64_t check_repair(struct check *c, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
/* What came of it: 0 or why not. */
void	check_repaired(struct check *c, uint64_t number, int rc);
/* Get routing anew, then fn. */
void	check_route(struct check *c, void (*fn)(struct check *c));
/* Too long without any answer since then: give up. */
bool	check_silent(const struct check *c, uint64_t since_ns);
/* Go on with fn after a pause. */
void	check_later(struct check *c, uint64_t ns, clock_timer_fn *fn);
/* A metadata server, another one when meta_at has changed. 0 or -ENOENT. */
int	check_server(const struct check *c, struct net_addr *out);
/* 0: all was looked at; or why it cannot go on. */
void	check_end(struct check *c, int rc);
/* Steps that have come to their end. */
void	check_have_image(struct check *c);
void	check_chunks_done(struct check *c);
void	check_mend_done(struct check *c);

/* ---- check_image.c: then check_have_image() ---- */
void	check_image_start(struct check *c);
void	check_image_close(struct check *c);

/* Begin again, unless that was done too often: then end with @rc. */
void	check_image_again(struct check *c, int rc);
/* The range was compared: go on. */
void	check_image_next(struct check *c);

/* ---- check_compare.c ---- */
/* An image is read from @source: who else has it? */
void	check_compare_begin(struct check *c, const struct net_addr *source);
/* Ask all others for c->range; then check_image_next(). */
void	check_compare_range(struct check *c);
/* All ranges were: tell who differs; then check_heal_start(). */
void	check_compare_end(struct check *c);
const char *check_node_name(const struct check *c, node_id node);

/* ---- check_heal.c: then check_have_image(), or another image ---- */
void	check_heal_start(struct check *c);

/* ---- check_meta.c ---- */
/* Look at the tree: faults are told, what mends them is in c->fixes. 0, -ENOMEM, -EIO. */
int	check_tree(struct check *c);
void	check_fixes_drop(struct check *c);
/* A chunk of an inode that is not there was seen. */
void	check_data_seen(struct check *c, ino_id ino);
/* Nothing is lost by it that has data, or that is wanted. */
bool	check_may_mend(const struct check *c, const struct check_fix *fix);
/* An entry leads to it. */
bool	check_is_named(const struct check *c, ino_id ino);

/* ---- check_mend.c: then check_mend_done() ---- */
void	check_mend_start(struct check *c);
/* The session that repairs have made ends; then fn. */
void	check_leave(struct check *c, void (*fn)(struct check *c));

/* ---- check_chunks.c: then check_chunks_done() ---- */
void	check_chunks_start(struct check *c);
void	check_chunks_close(struct check *c);

#endif
