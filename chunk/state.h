/* SPDX-License-Identifier: MIT */
/* state.h - the inside of an engine, shared by engine.c, commit.c, get.c, put.c, check.c.
 *
 * Callbacks of requests run from one place (chunk_done_run()), one at a time, so that any of
 * them may close the engine: after it returned, nothing of the engine is touched unless it
 * is known to live. */
#ifndef CHUNK_STATE_H
#define CHUNK_STATE_H

#include "chunk/alloc.h"
#include "chunk/damage.h"
#include "chunk/index.h"
#include "chunk/known.h"
#include "chunk/label.h"

#define CHUNK_LAZY_MS		50u	/* flips become durable when idle for so long */
#define CHUNK_BUSY_BUCKETS	1024u

/* A finished request whose callback is due. */
struct chunk_done {
	struct list node;
	void	  (*run)(struct chunk_done *d);	/* frees what holds it, then calls back */
};

/* One request of a read or write to the disk. */
struct chunk_io {
	struct disk_req req;
	struct iovec	iov[3];
	void	       *op;
};

/* A durable commit of the index on behalf of many. */
struct chunk_group {
	struct table_commit commit;
	uint64_t	    seq;
	struct chunk_engine *engine;
};

/* Space that is in no row any more. It is free once the commit that says so is durable
 * and the reads that began before are done. */
struct chunk_limbo {
	struct list node;
	uint64_t commit_seq, read_seq;
	struct chunk_extents extents;
};

/* Whether it is still the disk that was opened (presence.c). */
#define CHUNK_CHECK_MS		2000u
#define CHUNK_CHECK_WAITS	30u
#define CHUNK_CHECK_TRIES	3u
#define CHUNK_CHECK_LOW		(8u << 20)	/* bytes free: kept for the index */
struct chunk_presence {
	struct clock_timer timer;
	struct disk_check  check;
	struct disk_req	   label_req;
	struct iovec	   iov;
	uint8_t		  *buf;
	bool		   names, label;	/* under way */
	bool		   low;			/* the file system has hardly any space */
	bool		   none;		/* a write found none since the last look */
	unsigned	   strikes;
	unsigned	   waits;	/* for the answers */
};

struct chunk_engine {
	struct chunk_engine_conf conf;
	struct disk	   *data;
	struct table	   *table;
	struct chunk_index  index;
	struct chunk_alloc *alloc;
	struct chunk_known  known;
	struct chunk_damages damages;
	struct chunk_presence presence;
	struct chunk_label  label;
	char		    name[UID128_TEXT];	/* disk id, for the log */
	struct chunk_disk_stat stat;
	struct stat_set	    stat_set;
	int		    broken;	/* 0, or what every later request gets */
	bool		    open;	/* recovered */

	/* requests */
	struct list	    reads;	/* by read seq */
	struct list	    writes;
	struct list	    busy[CHUNK_BUSY_BUCKETS];	/* writes by chunk */
	struct list	    done;
	struct list	    starved_reads, starved_writes;	/* no memory to begin */
	struct clock_defer  done_defer;
	bool		   *gone;	/* set by close under a running callback */
	uint64_t	    read_seq;

	/* writes on their way: data written -> synced -> in the index */
	struct list	    to_sync, syncing, to_index, to_space;
	struct disk_req	    sync;
	bool		    sync_busy;
	struct clock_defer  turn;

	/* index commits */
	uint64_t	    commit_seq;	/* of the last one that was begun */
	uint64_t	    durable_seq;
	bool		    dirty;	/* changes that no commit covers yet */
	struct chunk_group  lazy;
	bool		    lazy_busy, lazy_again;
	struct clock_timer  lazy_timer;
	struct list	    limbo;	/* oldest first */
	uint64_t	    limbo_blocks;
	struct chunk_group  flush;
	chunk_engine_fn	   *flush_fn;
	void		   *flush_ctx;
	struct chunk_done   flush_end;
	int		    flush_rc;

	/* scratch, valid until return to the loop */
	struct chunk_row    row, next;
	struct chunk_pend   pend;

	/* opening */
	struct mem_buf	    label_buf;
	struct iovec	    label_iov;
	struct disk_req	    label_req;
	unsigned	    stale;
	uint8_t		    scan[CHUNK_KEY_BYTES];
	bool		    scan_after;
	uint64_t	    chunk_n, pend_n;
	struct clock_defer  open_defer;
	int		    open_rc;
	chunk_engine_fn	   *open_fn;
	void		   *open_ctx;
};

/* engine.c */
/* The disk or its index failed: log it, refuse everything from now on. */
void	chunk_engine_break(struct chunk_engine *e, int rc, const char *what);
/* What an error of the index means to a request: -ENOENT and -ENOMEM are answers, all
 * else breaks the engine. */
int	chunk_engine_index_rc(struct chunk_engine *e, int rc);
void	chunk_done_push(struct chunk_engine *e, struct chunk_done *d);
/* The same for a request that got no memory: @node is in the request itself. */
void	chunk_done_starved(struct chunk_engine *e, struct list *which, struct list *node);
/* Run what is due. The engine may be gone when this returns. */
void	chunk_done_run(struct chunk_engine *e);

/* presence.c */
int	chunk_presence_open(struct chunk_engine *e);
void	chunk_presence_start(struct chunk_engine *e);
void	chunk_presence_close(struct chunk_engine *e);	/* the data is closed */

/* commit.c */
void	chunk_commit_init(struct chunk_engine *e);
void	chunk_commit_fini(struct chunk_engine *e);
/* Begin a durable commit of all changes so far. */
void	chunk_group_start(struct chunk_engine *e, struct chunk_group *g,
	    table_commit_fn *fn);
/* To be called first in its callback: notes what is durable. Returns the engine. */
struct chunk_engine *chunk_group_ended(struct table_commit *c);
/* The index was changed; make it durable some time soon, or at once. */
void	chunk_commit_soon(struct chunk_engine *e);
void	chunk_commit_now(struct chunk_engine *e);
/* Space of @x is out of the index as of now; takes the list over (zeroes @x).
 * Room for it is made first with chunk_limbo_make(), so that this cannot fail. */
struct chunk_limbo *chunk_limbo_make(void);
void	chunk_limbo_free(struct chunk_limbo *l);
void	chunk_limbo_add(struct chunk_engine *e, struct chunk_limbo *l);
/* Give back what is free by now; then wake writes that wait for space. */
void	chunk_limbo_release(struct chunk_engine *e);

/* get.c, put.c */
void	chunk_get_abandon(struct chunk_engine *e);	/* for close */
void	chunk_put_abandon(struct chunk_engine *e);
bool	chunk_put_busy(const struct chunk_engine *e, target_id target, struct chunk_id id);
void	chunk_put_turn(struct clock_defer *d);
/* Space was freed: try those again that had none. */
void	chunk_put_space(struct chunk_engine *e);
uint64_t chunk_get_oldest(const struct chunk_engine *e);	/* read seq; UINT64_MAX */
/* For check.c: mark space that writes hold and no row has yet. */
int	chunk_put_mark(const struct chunk_engine *e, struct chunk_alloc *into);

#endif
