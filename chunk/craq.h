/* SPDX-License-Identifier: MIT */
/* craq.h - chain replication for the chunks of one loop's targets, without I/O.
 *
 * Events go in (a write arrived, its store ended, the successor answered, the chain moved,
 * a timer fired); effects come out (look at the chunk, store, forward, commit, reply).
 * Nothing here reads a clock, sends, sleeps or allocates after open; operations are embedded
 * by their owner, chunks that are being worked on are in a table taken at open.
 *
 * A chunk has one operation at a time, first come first served.  Versions of a chunk rise:
 *	next = max(committed + 1, epoch << 32 | 1)	a removal: epoch << 32
 * plus twice the number of versions this head has taken back (chunk_craq_target.skip).
 *
 * Chains change and heal.  A target that has moved to a new version of its chain settles:
 *	chunk_craq_move()	operations end stale, nothing is taken
 *	t->stale == 0		at the reading tail the owner commits every pending version:
 *				a former tail may have committed it, and told readers
 *	chunk_craq_serve()	operations are taken
 * A replica that comes back is SYNCING: behind the reading tail it gets every write as a
 * whole chunk, forced, and CRAQ_SYNC operations make its other chunks equal.  It has nothing
 * that the reading tail has not stored, and nobody reads from it.
 *
 * Sources: Terrace and Freedman, "Object Storage on CRAQ", USENIX ATC 2009; 3FS
 * docs/design_notes.md, "Data replication". */
#ifndef CHUNK_CRAQ_H
#define CHUNK_CRAQ_H

#include <stdbool.h>
#include <stdint.h>

#include "chunk/engine.h"
#include "conf/ids.h"
#include "conf/list.h"

struct chunk_craq;			/* opaque; one per loop */

#define CHUNK_CRAQ_WAIT_MAX	64u	/* operations waiting for one chunk */
#define CHUNK_CRAQ_FENCES	32u	/* chunks with given-up attempts, a target */

/* The predecessor has given up attempts at this chunk; they may still arrive. */
struct chunk_craq_fence {
	struct chunk_id id;
	uint64_t below;		/* attempts that are refused */
};

/* What a target is in one version of its chain. */
struct chunk_craq_place {
	uint32_t version;
	bool	 head;
	bool	 tail;		/* nobody behind us takes writes */
	bool	 read_tail;	/* the last that serves: what it has committed is committed */
	bool	 syncing;	/* we are the SYNCING one */
	bool	 whole;		/* our successor is: it gets whole chunks */
};

/* One replica slot, as the core sees it; embedded by its owner.  Read only for others. */
struct chunk_craq_target {
	target_id   id;
	uint32_t    version;		/* of its chain; 0: not known yet */
	bool	    active;		/* it has a place in that version */
	bool	    serving;		/* takes operations, as SYNCING those of its kind */
	bool	    head, tail, read_tail, syncing, whole;
	bool	    handing;		/* see chunk_craq_hand() */
	uint64_t    floor;		/* attempts of the predecessor below are over */
	unsigned    fence_n;		/* those of chunks, above the floor */
	struct chunk_craq_fence fences[CHUNK_CRAQ_FENCES];
	uint64_t    skip;		/* versions taken back as head */
	uint32_t    stale;		/* operations of older chain versions under way */
	struct list ops;		/* all that have not ended */
	struct list doubts;		/* chunks whose successors may be ahead of us */
};

enum chunk_craq_kind {
	CRAQ_WRITE = 1,		/* a client's, at the head */
	CRAQ_CUT,		/* truncate or remove for metadata, at the head */
	CRAQ_UPDATE,		/* from the predecessor */
	CRAQ_SETTLE,		/* the predecessor asks what became of a version: leave no
				 * doubt about the chunk, here and behind us */
	CRAQ_SYNC,		/* at the reading tail: make the SYNCING successor's chunk what
				 * ours is.  It does not give up before the chain moves;
				 * deadline_ns is then that of the try, set by the core.
				 * ERR_CORRUPT: our own is damaged, repair it first */
	CRAQ_REPAIR		/* where we serve: our committed bytes are damaged.  ERR_BUSY: not
				 * now (peers hold another version, or one is pending).
				 * Forced, they are wrong, if this is @version: what is
				 * fetched is right, even if other bytes; -ESTALE: it is
				 * another version */
};

/* One operation on one chunk.  The owner fills the first part and keeps all of it until the
 * CRAQ_REPLY effect. */
struct chunk_craq_op {
	struct chunk_craq_target *target;
	struct chunk_id	id;
	enum chunk_craq_kind kind;
	uint32_t	chain_version;	/* as the request says */
	uint8_t		update;		/* enum update_kind that is asked for */
	uint32_t	epoch;
	uint64_t	version, base, attempt;	/* UPDATE; REPAIR, force: version */
	bool		force;		/* UPDATE: to a SYNCING replica, whatever it holds; or
					 * REPAIR */
	uint32_t	check;		/* UPDATE, force: as the effect's */
	struct uid128	client;		/* WRITE: who, for recognising a retry */
	uint64_t	seq;
	uint64_t	deadline_ns;	/* the asker gives up then */
	/* the core's */
	struct list	in_entry, in_target, in_ready;
	struct chunk_craq_entry *entry;
	uint8_t		state, store, forward, job_kind;
	bool		job_own, job_loaded, whole, unknown, pending_here, stale;
	bool		touched, sent, no_space;
	uint16_t	todo;
	uint32_t	job_epoch, tries;
	uint64_t	job_version, job_base, wake_ns;
	int		store_rc, forward_rc, rc;
	uint32_t	len, len_below, check_here, check_below, digest;
	uint64_t	rep_version;
};

enum chunk_craq_ev {
	CRAQ_EV_ADMIT,		/* a new operation */
	CRAQ_EV_INFO,		/* answer to LOOK: rc, info, room, epoch_floor */
	CRAQ_EV_LOADED,		/* answer to LOAD and FETCH: rc, epoch; LOAD: check, which is
				 * chunk_craq_digest() of what was loaded */
	CRAQ_EV_STORED,		/* answer to STORE: rc, len, check; to PURGE: rc */
	CRAQ_EV_FORWARDED,	/* answer to FORWARD: rc, version, len, check */
	CRAQ_EV_WOKEN		/* the time named by WAKE has come */
};

struct chunk_craq_event {
	enum chunk_craq_ev kind;
	struct chunk_craq_op *op;
	uint64_t	now_ns;		/* never goes back */
	int		rc;
	uint64_t	version;
	uint32_t	len, check, epoch;
	const struct chunk_info *info;	/* NULL: no such chunk; borrowed for the call */
	bool		room;		/* the disk takes new data of this size */
	uint32_t	epoch_floor;	/* older epochs have been cut off */
};

enum chunk_craq_eff {
	CRAQ_CANCEL,	/* end the forward or fetch call and the timer; no event comes */
	CRAQ_COMMIT,	/* flip pending @version, now */
	CRAQ_ABORT,	/* drop pending @version, now */
	CRAQ_LOOK,	/* answer INFO, now */
	CRAQ_LOAD,	/* read our @version, pending or committed, whole: the loaded payload */
	CRAQ_FETCH,	/* get @version, whole: LOADED rc 0.  From the replicas behind us:
			 * -ENOENT: the successor has not got it; else not known.  REPAIR:
			 * from any other that serves; -ENOENT: none has that version */
	CRAQ_PURGE,	/* SYNCING: forget the chunk, whatever of it is here: store a removal
			 * as @version and commit it.  Answer STORED */
	CRAQ_STORE,	/* make the pending version: @update, @version, @epoch */
	CRAQ_FORWARD,	/* send the same, with @base, @force and @check, to the successor */
	CRAQ_WAKE,	/* answer WOKEN at @at_ns */
	CRAQ_REPLY	/* it has ended: answer @rc, @version, @len, @check; the core has
			 * forgotten the operation */
};

struct chunk_craq_effect {
	enum chunk_craq_eff kind;
	struct chunk_craq_op *op;
	uint64_t	version, base;
	uint32_t	epoch;
	uint8_t		update;		/* STORE, FORWARD: enum update_kind */
	bool		loaded;		/* payload: what was loaded, not the request's */
	bool		force;		/* FORWARD: the successor is SYNCING */
	bool		unsure;		/* FORWARD, FETCH: older attempts at this chunk may
					 * be on their way: fence them */
	uint64_t	at_ns;
	int		rc;
	uint32_t	len, check;	/* REPLY; FORWARD, force: check */
	bool		touched;	/* REPLY: it made a version, was not a repeat */
	bool		no_space;	/* REPLY: there is no space here for a version that
					 * replicas behind us may hold, so it cannot be refused
					 * any more: only a chain without us can go on */
};

/* @n: most chunks worked on or in doubt at once, 1..1048576; memory is taken here.
 * 0; -ENOMEM; -EINVAL. */
int	chunk_craq_open(struct chunk_craq **out, unsigned n);
/* Operations are forgotten where they are. NULL is fine. */
void	chunk_craq_close(struct chunk_craq *c);

void	chunk_craq_target_init(struct chunk_craq_target *t, target_id id);
/* The chain of @t is now at @p->version, over the old one.  Waiting operations end with
 * ERR_STALE_CHAIN; those under way start nothing more and end as soon as their disk requests
 * have: then t->stale is 0.  Take effects.  What may be behind us stays noted, unless we
 * are the reading tail now or SYNCING. */
void	chunk_craq_move(struct chunk_craq *c, struct chunk_craq_target *t,
	    const struct chunk_craq_place *p);
/* It has settled: t->stale is 0 and, at a reading tail, nothing is pending. */
void	chunk_craq_serve(struct chunk_craq *c, struct chunk_craq_target *t);
/* We, a reading tail, are about to tell the manager that our SYNCING successor is equal: it
 * may become the reading tail at any time from now, before we hear of it.  So until the next
 * move we do not answer for chunks that are dirty: they may be committed there already.
 * Reads and questions of others about them get ERR_CHAIN_RECOVERING. */
void	chunk_craq_hand(struct chunk_craq_target *t);
/* As move, to a version in which it has no place: takes nothing.  @version may be the one it
 * is in: the target was given to somebody else. */
void	chunk_craq_rest(struct chunk_craq *c, struct chunk_craq_target *t,
	    uint32_t version);
/* The target goes away; no operation may be under way. */
void	chunk_craq_target_fini(struct chunk_craq *c, struct chunk_craq_target *t);
/* The predecessor says which of its attempts are void: @floor, all below it; @fence, those
 * at chunk @id below it (0: none).  0; ERR_BUSY: more fences than we can keep, do not act
 * on what came with it. */
int	chunk_craq_fence(struct chunk_craq_target *t, uint64_t floor,
	    struct chunk_id id, uint64_t fence);

/* Take one event.  Take effects until there are none after every step.
 * ADMIT: 0; ERR_STALE_CHAIN, ERR_CHAIN_RECOVERING (it settles), ERR_NOT_OWNER or ERR_BUSY,
 * and then the operation was not taken.  Others: 0. */
int	chunk_craq_step(struct chunk_craq *c, const struct chunk_craq_event *ev);
/* The next effect; false: none. */
bool	chunk_craq_next(struct chunk_craq *c, struct chunk_craq_effect *out);

/* A version newer than what this replica shows may be committed at the tail: a reader has
 * to ask there; the reading tail itself shows what is committed, unless it is @handing.
 * @info as the engine has it now, NULL: no such chunk. */
bool	chunk_craq_dirty(const struct chunk_craq *c, const struct chunk_craq_target *t,
	    struct chunk_id id, const struct chunk_info *info);
/* An operation has the chunk, waits for it, or left it in doubt. */
bool	chunk_craq_busy(const struct chunk_craq *c, const struct chunk_craq_target *t,
	    struct chunk_id id);

/* Others wait for the chunk that @op has. */
bool	chunk_craq_awaited(const struct chunk_craq_op *op);

/* Replicas behind us may hold a version of it that we could not store. */
bool	chunk_craq_doubts(const struct chunk_craq *c,
	    const struct chunk_craq_target *t, struct chunk_id id);

/* The same of any chunk of inode @from.ino from @from.index on, in an older epoch. */
bool	chunk_craq_doubts_from(const struct chunk_craq_target *t, struct chunk_id from,
	    uint32_t epoch);

/* The last operation at the chunk left a version that may be committed or not, and nobody
 * works on it now: any operation at the head settles it. @info as above. */
bool	chunk_craq_left(const struct chunk_craq *c, const struct chunk_craq_target *t,
	    struct chunk_id id, const struct chunk_info *info);

/* What has to be equal in two replicas of @version of a chunk: bytes, length and the writes
 * that are remembered with it (a retry after a failover must be known).  @version is the
 * committed or the pending one of @info. */
uint32_t chunk_craq_digest(const struct chunk_info *info, uint64_t version);

/* What a dirty reader does with the version the tail has committed. */
enum chunk_craq_pick {
	CRAQ_PICK_READ,		/* read that version here */
	CRAQ_PICK_NONE,		/* there is no such chunk */
	CRAQ_PICK_AGAIN		/* we have moved on, or are not there yet: ask again */
};
enum chunk_craq_pick chunk_craq_pick(const struct chunk_info *info,
	    uint64_t tail_version);

/* Name of an effect, for traces. */
const char *chunk_craq_eff_name(enum chunk_craq_eff kind);

/* Assert the numbered invariants of craq.c. */
void	chunk_craq_check(const struct chunk_craq *c);

#endif
