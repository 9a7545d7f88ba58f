/* SPDX-License-Identifier: MIT */
/* storage_impl.h - what the files of the storage role share; nobody else includes it.
 *
 *   storage		one node: membership, routing, ready and stop; on the main loop
 *   storage_worker	one loop: listener, disks, targets, buffers
 *   storage_target	our replica of one chain
 *   storage_op		one write, update or cut of one chunk, driven by chunk/craq.c
 *
 * The main loop hands a worker its chains as a view, made for it and owned by it from then
 * on; what crosses threads besides is posts and a few atomics. */
#ifndef ROLES_STORAGE_IMPL_H
#define ROLES_STORAGE_IMPL_H

#include <stdatomic.h>

#include "chunk/craq.h"
#include "chunk/engine.h"
#include "conf/map.h"
#include "conf/mem.h"
#include "net/member.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "net/serve.h"
#include "roles/storage.h"
#include "roles/storage_repair.h"
#include "roles/storage_scrub.h"

#define STORAGE_OPS_KEEP	256u	/* free operations kept by a worker */
#define STORAGE_CUTS		1024u	/* recent cuts a worker remembers */
#define STORAGE_LIST_PAGE	512u	/* rows of a list asked for at once */

struct storage_worker;
struct storage_target;

struct storage_disk {
	struct storage_worker *w;
	char	       *path;
	struct disk_dir *dir;
	struct chunk_engine *engine;
	struct storage_scrub *scrub;	/* NULL: not open */
	struct storage_repair *repair;
	struct uid128	id;
	bool		open;		/* engine is usable; set before workers serve */
	uint64_t	storing_bytes;	/* payload of stores in flight */
	/* for the main loop */
	atomic_bool	failed;		/* I/O error: refuse everything */
	atomic_uint_least64_t capacity, used;
};

/* One chain of a worker, as routing has it. */
struct storage_view_chain {
	target_id target;		/* ours */
	chain_id  chain;
	uint32_t  version;
	bool	  serving;
	uint8_t	  n, pos;		/* replicas, and which is ours */
	struct uid128 disk;
	target_id replicas[ROUTING_REPLICAS_MAX];
	struct net_addr addrs[ROUTING_REPLICAS_MAX];	/* kind NONE: not known */
};
struct storage_view {
	bool	 current;		/* routing knows this very process */
	uint32_t n;
	struct storage_view_chain chains[];
};

struct storage_target {
	struct storage_worker *w;
	struct storage_disk *disk;
	struct storage_view_chain v;	/* as last seen */
	bool	    gone;		/* routing does not give it to us any more */
	bool	    seen;		/* by the view being applied */
	struct chunk_craq_target craq;
	uint64_t    attempt;		/* of the last update sent to the successor */
	struct list attempts;		/* those not answered, oldest first */
};

struct storage_cut_row {
	target_id target;
	ino_id	  ino;
	uint32_t  index, epoch;
};

#define STORAGE_STATS(X) \
	X(counter, reads,          "chunk reads that were answered")             \
	X(counter, read_bytes,     "bytes of them")                              \
	X(counter, dirty_reads,    "chunk reads that asked the tail first")      \
	X(counter, failed_reads,   "chunk reads of bytes that are damaged here") \
	X(counter, writes,         "writes by clients, at heads")                \
	X(counter, write_bytes,    "bytes of them")                              \
	X(counter, updates,        "updates by predecessors and reconciliation") \
	X(counter, update_bytes,   "bytes of them")                              \
	X(counter, repeats,        "writes and updates that were done already")  \
	X(counter, cut_chunks,     "chunks truncated or removed, at heads")      \
	X(counter, reconciled,     "chains brought to one state")                \
	X(counter, reconciled_chunks, "chunks brought to one version for it")    \
	X(counter, copied_chunks,  "copies of whole chunks made for it")         \
	X(gauge,   capacity_bytes, "bytes usable for chunks")                    \
	X(gauge,   used_bytes,     "bytes allocated to chunks")                  \
	X(gauge,   buffer_bytes,   "buffers in use")                             \
	X(hist,    read_ns,        "time from read request to reply")            \
	X(hist,    write_ns,       "time from write request to reply, at heads")
STAT_DECLARE(storage, STORAGE_STATS)

struct storage_worker {
	struct storage	*st;
	const struct role_env *env;
	struct clock	*clock;
	unsigned	 loop;
	struct net_server *server;
	struct net_addr	 addr;
	struct mem_pool	*pool;
	struct storage_disk *disks;	/* disk_n */
	unsigned	 disk_n, disks_opening;
	int		 open_rc;
	struct chunk_craq *craq;
	struct map	 targets;	/* target id -> storage_target */
	bool		 current;	/* see storage_view */
	bool		 running;	/* effects are being taken */
	bool		 stopping;
	unsigned	 flushing;	/* engines */
	struct clock_timer beat;	/* publishes space; waits while stopping */
	uint64_t	 stop_by_ns;
	struct list	 ops, free_ops;
	unsigned	 free_ops_n;
	struct list	 reads;		/* storage_read requests in hand */
	struct list	 fetches;
	struct list	 cuts;
	struct storage_cut_row cut_rows[STORAGE_CUTS];
	struct list	 left;		/* chunks to settle (storage_left.c) */
	unsigned	 left_n, left_busy;
	struct clock_timer left_timer;
	struct storage_stat stat;
	struct stat_set	 stat_set;
	atomic_bool	 refresh_asked;
};

/* Posts between loops; heap, and harmless when the storage has been closed meanwhile. */
struct storage_gate {
	atomic_uint refs;
	_Atomic(struct storage *) st;
};
struct storage_ready;
struct storage_post;
typedef void storage_post_fn(struct storage *st, struct storage_post *p);
struct storage_post {
	struct clock_post    post;
	struct storage_gate *gate;
	storage_post_fn	    *fn;	/* p and what it owns are freed after it */
	unsigned	     loop;
	int		     rc;
	struct storage_view *view;	/* owned until fn takes it */
	struct storage_ready *ready;	/* likewise */
	struct net_addr	     listen;
};

/* A chain the manager has to be told about. */
struct storage_ready {
	struct storage	*st;
	struct list	 node;
	chain_id	 chain;
	uint32_t	 version, tries;
	struct net_call	 call;
	struct clock_timer timer;
};

enum storage_phase { STORAGE_OPENING, STORAGE_JOINING, STORAGE_SERVING,
	STORAGE_STOPPING, STORAGE_LEAVING, STORAGE_STOPPED };

struct storage {
	const struct role_env *env;	/* of the main loop */
	enum storage_phase phase;
	unsigned	 loop_n, loops_busy;	/* loops still opening or stopping */
	struct storage_worker *workers;
	struct disk_dir	*dir;
	struct uid128	 node_uid, boot;
	char		*name;
	struct net_addr	*managers;
	unsigned	 manager_n;
	struct member	*member;
	struct storage_gate *gate;
	struct list	 readies;
	int		 open_rc;
	role_fn		*ready, *stopped;
	void		*ready_ctx, *stopped_ctx;
};

/* ---- storage.c ---- */
/* The chain is reconciled: tell the manager until it has heard or knows better. From a
 * worker. 0 or -ENOMEM. */
int	storage_ready_start(struct storage_worker *w, chain_id chain,
	    uint32_t version);
/* Somebody knows newer routing than we do. From a worker. */
void	storage_refresh(struct storage_worker *w);
/* Of worker @loop: it has opened, or stopped. On its loop. */
void	storage_worker_opened(struct storage_worker *w, int rc);
void	storage_worker_stopped(struct storage_worker *w);

/* ---- storage_worker.c ---- */
int	storage_worker_init(struct storage_worker *w, struct storage *st,
	    unsigned loop, const struct storage_conf *conf);
/* Listen and open the disks; storage_worker_opened() follows, later, when 0. */
int	storage_worker_start(struct storage_worker *w, const struct net_addr *listen);
unsigned storage_worker_disks(const struct storage_worker *w);	/* that are open */
/* Take a new view; it is freed. */
void	storage_worker_view(struct storage_worker *w, struct storage_view *view);
/* Drain and flush; storage_worker_stopped() follows. */
void	storage_worker_stop(struct storage_worker *w);
void	storage_worker_close(struct storage_worker *w);
/* Serve in the chain's version once operations of older ones have ended. */
void	storage_settle(struct storage_target *t);
/* Who may ask what: 0 and the target, or why not. */
int	storage_check(struct storage_worker *w, target_id target, chain_id chain,
	    uint32_t version, struct storage_target **out);
bool	storage_lease(const struct storage_worker *w);
void	storage_disk_failed(struct storage_disk *d, const char *what, int rc);
/* Bytes of buffers that a request of replica @pos of @n may bring the pool to: later
 * replicas get more, so that a full pool never waits for itself around a ring of nodes. */
bool	storage_memory(const struct storage_worker *w, unsigned pos, unsigned n,
	    size_t bytes);

/* ---- storage_care.c ---- */
/* The scrubber and the repair of a disk that is open. 0 or -ENOMEM. */
int	storage_care_open(struct storage_disk *d);
void	storage_care_damaged(void *disk);	/* for struct chunk_engine_conf */
void	storage_care_stop(struct storage_disk *d);
void	storage_care_close(struct storage_disk *d);	/* its engine is closed */

/* ---- storage_op.c ---- */
struct storage_op;
typedef void storage_op_fn(struct storage_op *op, int rc);

/* A whole chunk in memory. */
struct storage_whole {
	struct mem_buf buf;		/* owned; may hold nothing */
	uint8_t	 *data;
	uint32_t  len, crc, epoch, check;
	uint64_t  version;
	uint8_t	  shift;
	uint32_t  dedupe_n;
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
};

struct storage_op {
	struct chunk_craq_op craq;
	struct storage_worker *w;
	struct storage_target *t;
	struct list	 node;		/* w->ops or w->free_ops */
	struct net_req	*req;		/* NULL: made by ourselves, ends in done() */
	storage_op_fn	*done;
	void		*ctx;
	bool		 touched;	/* in done() */
	/* what is asked for */
	uint8_t		 shift;
	uint32_t	 offset, len, crc;
	struct mem_buf	 buf;		/* owned */
	struct mem_buf	 lent;		/* buf, or the asker's */
	uint8_t		*data;
	const struct chunk_dedupe *dedupe;	/* REPLACE */
	uint32_t	 dedupe_n;
	struct chunk_dedupe dedupe_copy[CHUNK_DEDUPE_MAX];
	/* an older version that has to be settled first, or ours whole */
	struct storage_whole whole;
	struct chunk_write store;
	uint32_t	 storing_bytes;
	uint64_t	 start_ns;
	struct chunk_read load;
	struct net_call	 call;
	struct iovec	 iov;
	struct clock_timer wake;
	struct list	 in_attempts;
	uint64_t	 attempt;
	unsigned	 fetch_from;	/* replicas tried: how far from us */
};

void	storage_write_call(struct storage_worker *w, struct net_req *req);
void	storage_update_call(struct storage_worker *w, struct net_req *req);
/* An operation of our own: fill what is asked for, then start.  NULL: no memory. */
struct storage_op *storage_op_get(struct storage_worker *w, struct storage_target *t);
/* 0: done() follows, maybe before this returns; else it was freed. */
int	storage_op_start(struct storage_op *op);
void	storage_op_drop(struct storage_op *op);
/* Take the core's effects until there are none. */
void	storage_run(struct storage_worker *w);
/* Tear down all operations; nothing calls back. */
void	storage_ops_close(struct storage_worker *w);
void	storage_dedupe_in(struct chunk_dedupe *out, uint32_t *n,
	    const msg_t_list_dedupe *in);
void	storage_dedupe_out(struct msg_dedupe *out, const struct chunk_dedupe *in,
	    uint32_t n);

/* ---- storage_read.c ---- */
void	storage_read_call(struct storage_worker *w, struct net_req *req);
void	storage_committed_call(struct storage_worker *w, struct net_req *req);
void	storage_last_call(struct storage_worker *w, struct net_req *req);
void	storage_reads_close(struct storage_worker *w);

/* ---- storage_cut.c ---- */
void	storage_cut_call(struct storage_worker *w, struct net_req *req);
/* Writes of older epochs than this to that chunk have been cut off. */
uint32_t storage_cut_floor(const struct storage_worker *w, target_id target,
	    struct chunk_id id);
void	storage_cuts_close(struct storage_worker *w);

/* ---- storage_left.c ---- */
/* @op has failed at the head: settle later what it leaves behind. */
void	storage_left_note(const struct storage_op *op);
void	storage_left_close(struct storage_worker *w);

/* ---- storage_fetch.c ---- */
void	storage_list_call(struct storage_worker *w, struct net_req *req);
void	storage_fetch_call(struct storage_worker *w, struct net_req *req);
/* A page of at most @max chunks after @after (NULL: from the first). 0, -EIO. */
int	storage_list_rows(struct storage_target *t, const struct chunk_id *after,
	    uint32_t max, struct msg_list_row *rows, uint32_t *n, bool *more);
void	storage_fetches_close(struct storage_worker *w);

#endif
