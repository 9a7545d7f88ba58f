/* SPDX-License-Identifier: MIT */
/* group_impl.h - what the files of a group share.
 *
 *	group.c		open and close, effects of the core, requests come in
 *	group_start.c	the log at open, founding
 *	group_turn.c	the end of a turn: apply, answers, what the owner is told
 *	group_table.c	its rows in the table, flush, cutting the log
 *	group_net.c	messages
 *	group_snap.c	snapshots out
 *	group_load.c	snapshots in
 *	group_mark.c	the table frozen at one entry, on all members
 *	group_heal.c	a table that is damaged given up for the leader's
 *	group_want.c	members */
#ifndef META_GROUP_IMPL_H
#define META_GROUP_IMPL_H

#include "meta/group.h"
#include "meta/log.h"
#include "net/msg_all.h"

#define GROUP_PEERS	16u		/* members, those that were, and strangers */
#define GROUP_CALLS	32u		/* messages on their way to one peer */
#define GROUP_LAG	16u		/* of those, entries that must be read first */
#define GROUP_INFLIGHT	16u		/* appends to one follower */
#define GROUP_ENTRIES	2048u		/* in one message */
#define GROUP_BYTES	(256u << 10)	/* payload in one message */
/* The entries of one message: heads, payload, and one entry more than fits. */
#define GROUP_ENTRY_HEAD 14u
#define GROUP_PACK	(GROUP_BYTES + GROUP_CMD_MAX + \
	    GROUP_ENTRIES * GROUP_ENTRY_HEAD)
#define GROUP_PIECE	(128u << 10)	/* of a snapshot; one row may be longer */
#define GROUP_ROW_HEAD	6u
#define GROUP_PIECE_MAX	(GROUP_ROW_HEAD + TABLE_KEY_MAX + TABLE_VALUE_MAX)

struct peer;

struct peer_call {
	struct net_call call;
	struct peer    *peer;
};

/* A table on its way to a follower. */
struct snap {
	bool		 wanted;	/* the core asked for it */
	uint64_t	 need;		/* an index of at least this */
	struct table_image *image;	/* NULL: waits for a flush */
	struct raft_point point;	/* of the image */
	uint8_t		 members[RAFT_MEMBERS_BYTES];
	uint32_t	 members_len;
	uint64_t	 id, seq;
	uint8_t		 key[TABLE_KEY_MAX];	/* rows up to here were sent */
	size_t		 key_len;
	uint8_t		*buf;		/* the piece that is being sent */
	size_t		 len;
	bool		 last;
	struct net_call	 call;
	struct clock_timer timer;	/* again */
	uint64_t	 moved_ns;	/* last progress */
};

struct peer {
	struct group	*g;
	uint64_t	 id;		/* 0: free */
	struct net_addr	 addr;
	uint64_t	 used;		/* order of last use */
	struct peer_call *calls;	/* GROUP_CALLS */
	/* entries that are not in memory */
	struct meta_log_reader *reader;
	struct raft_msg	 lag[GROUP_LAG];
	unsigned	 lag_n;
	uint8_t		*pack;		/* GROUP_PACK */
	size_t		 pack_len;
	uint32_t	 pack_n;	/* entries of lag[0] in it */
	struct snap	 snap;
};

/* A table that is being received. */
struct load {
	bool		 active;	/* pieces come */
	bool		 finishing;	/* the core said to replace */
	uint64_t	 from, term, id, seq;	/* seq: the piece due next */
	struct raft_point point;
	bool		 last;		/* the piece being committed is */
	struct net_req	*req;		/* to be answered when it is durable */
	struct table_commit commit;
	bool		 committing;
	uint64_t	 ticket;	/* of the log's restart; 0: none */
};

enum group_phase { GROUP_OPENING, GROUP_FOUNDING, GROUP_RUNNING };

struct group {
	struct group_conf conf;
	struct meta_log	*log;
	struct table	*table;
	struct raft	*raft;		/* NULL before its log was read, and founding */
	enum group_phase phase;
	uint64_t	 member;	/* our id */
	struct uid128	 id;		/* of the group */
	int		 rc;		/* what broke it */
	bool		 told;		/* broken() was called */
	bool		*closed;	/* set when closed inside a callback */
	struct clock_defer defer;	/* work() */
	struct clock_timer tick;	/* raft_wake_ns() */

	/* what the core said */
	enum raft_role	 role;
	uint64_t	 serve_index;	/* lead once this is applied */
	bool		 leads, told_leads;
	uint64_t	 commit;
	uint64_t	 members_told, leader_told;
	struct raft_hard hard;		/* last RAFT_SAVE */
	uint64_t	 hard_ticket;	/* of the log; 0: saved */
	/* what it must be told */
	uint64_t	 sync_index, sync_term;
	bool		 sync;

	/* applied */
	struct raft_point applied;
	struct meta_log_reader *reader;	/* of what is not in memory */
	struct list	 inflight;	/* struct group_req, by index */
	uint32_t	 inflight_n;
	struct list	 failed;	/* leadership was lost */
	struct list	 reads_new, reads;	/* reads: index or ticket is known */

	/* proposals of this turn */
	uint8_t		*props;
	size_t		 props_len;
	struct raft_entry *prop;	/* payload: offset in props until proposed */
	uint32_t	 prop_n;
	uint64_t	 prop_first;	/* index of the first */

	struct group_req *quiet;	/* NULL: nobody wants it */

	/* the table on its way to the disk */
	struct table_commit commit_req;
	bool		 committing;
	struct raft_point commit_point;
	uint64_t	 durable;	/* index the table holds durably */
	uint64_t	 members_durable;	/* configuration that its row has */
	struct clock_timer flush_timer;
	void		(*flush_fn)(void *ctx);
	void		*flush_ctx;
	bool		 cut_all;	/* keep no tail for followers next time */

	/* snapshots */
	bool		 half;		/* the table is half replaced */
	uint64_t	 snap_index, snap_term;	/* of the one it began with; 0: none */
	uint64_t	 floor_index, floor_term;	/* see group_load.c; 0: none */
	bool		 floor_row;	/* it is in the table */
	bool		 restored;	/* the owner is to be told */
	struct load	 load;

	/* marks: applied and not yet written; being written; what was frozen */
	uint64_t	 mark, freezing, frozen_index;
	struct table_image *frozen;	/* NULL: none */
	uint64_t	 frozen_ns;	/* it was last asked for */
	struct clock_timer thaw_timer;
	/* damage */
	bool		 healing;	/* as soon as another one leads */
	uint64_t	 heal_ns;	/* since when */

	struct peer	 peers[GROUP_PEERS];
	uint64_t	 peer_uses;
	uint64_t	 warned_ns;	/* of strangers */
	struct raft_entry *entries;	/* GROUP_ENTRIES: of a message received */
	uint8_t		*pack;		/* GROUP_PACK: of a message sent */

	/* members wanted */
	struct group_want want[RAFT_MEMBERS_MAX];
	uint64_t	 found[RAFT_MEMBERS_MAX];	/* id at that address */
	unsigned	 want_n, want_at;
	struct net_call	 who;
	uint64_t	 who_ns;

	struct group_stat stat;
	struct stat_set	 stat_set;
	uint8_t		 result[GROUP_RESULT_MAX];
};

static inline uint64_t
group_now(const struct group *g)
{
	return clock_fresh(g->conf.clock);	/* votes and leases rest on it */
}

/* group.c */
void	group_pump(struct group *g);	/* after every event of the core */
void	group_save_hard(struct group *g, uint64_t term, uint64_t vote);
void	group_fail_all(struct group *g);

/* group_start.c */
extern const struct meta_log_ops group_log_ops;
/* Replace the core by one that knows nothing but its term and vote. 0, -ENOMEM ... */
int	group_forget(struct group *g);

/* group_turn.c */
void	group_poke(struct group *g);	/* work() after this turn */
/* Hand what was proposed in this turn to the core: before it appends anything of its own,
 * since the requests have their indexes already. */
void	group_order(struct group *g);

/* group_table.c */
int	group_rows_read(struct group *g);
int	group_rows_put(struct group *g, const struct raft_point *p);
void	group_flush_maybe(struct group *g);
void	group_commit_table(struct group *g);
void	group_cut(struct group *g);
bool	group_flushed(const struct group *g);
/* The point in an image, 0, -ENOENT, ERR_CORRUPT, -errno. */
int	group_image_point(struct table_image *m, struct raft_point *out);
int	group_row_loading(struct group *g);
int	group_row_loaded(struct group *g, const struct raft_point *p);

/* group_net.c */
struct peer *group_peer(struct group *g, uint64_t id, bool make);
void	group_send(struct group *g, const struct raft_msg *m);
void	group_peers_stop_leading(struct group *g);
void	group_peers_close(struct group *g);
uint64_t group_fit(void *ctx, uint64_t first, uint64_t last, uint32_t bytes);
/* Is a message of ours, to us. 0, or what to answer. */
int	group_message_ok(struct group *g, const struct uid128 *id, uint32_t number,
	    uint64_t from, uint64_t to);
bool	group_below_floor(const struct group *g, uint64_t term, uint64_t index);

/* group_snap.c */
void	group_snap_want(struct group *g, uint64_t to, uint64_t index);
/* Tell the core of a snapshot that it waits for and that could not be begun. */
void	group_snap_missed(struct group *g);
void	group_snap_flushed(struct group *g);
void	group_snap_stop(struct peer *p);
uint64_t group_snap_lowest(const struct group *g);	/* UINT64_MAX: none */
bool	group_snap_waits(const struct group *g);

/* group_load.c */
void	group_load_piece(struct group *g, struct net_req *req);
void	group_load_restore(struct group *g, const struct raft_point *p);
void	group_load_saved(struct group *g);
void	group_load_close(struct group *g);

/* Know nothing any more but our id, term, vote and the floor, and take nothing but a
 * snapshot. 0 or an error that broke the group. */
int	group_half(struct group *g);

/* group_mark.c */
/* A mark was applied: write the table as it is. False: not now, apply no more. */
bool	group_mark_write(struct group *g);
/* The table was written as of commit_point. */
void	group_mark_written(struct group *g);

/* group_heal.c */
void	group_heal_drive(struct group *g);

/* group_want.c */
void	group_want_drive(struct group *g);

#endif
