/* SPDX-License-Identifier: MIT */
/* storage_impl.h - what the files of the storage role share; nobody else includes it.
 *
 *   storage		one node: membership, routing, ready and stop; on the main loop
 *   storage_tell	what the manager is told besides beats; on the main loop
 *   storage_worker	one loop: listener, disks, targets, buffers
 *   storage_target	our replica of one chain, from one chain version to the next
 *   storage_op		one operation on one chunk, driven by chunk/craq.c
 *   storage_write	requests that become operations
 *   storage_cut	truncations and removals, which become many
 *   storage_left	operations that settle what others left unfinished
 *   storage_read	reads, and what only the tail can say
 *   storage_fetch	lists of chunks and whole chunks, for other replicas
 *   storage_relay	requests passed on to another replica
 *   storage_sync	the replica behind us is brought up to date
 *   storage_pace	what clients leave of a worker for that
 *   storage_apart	neighbours that cannot be reached
 *   storage_care	joins the next two, which know engines only, to a disk's worker
 *   storage_scrub	all of a disk is read now and then
 *   storage_repair	what is damaged is replaced
 *
 * The main loop hands a worker its chains as a view, made for it and owned by it from then
 * on; what crosses threads besides is posts and a few atomics. */
#ifndef ROLES_STORAGE_IMPL_H
#define ROLES_STORAGE_IMPL_H

#include <stdatomic.h>

#include "chunk/craq.h"
#include "chunk/engine.h"
#include "chunk/pace.h"
#include "chunk/resync.h"
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
#define STORAGE_CUTS		16384u	/* recent cuts a worker remembers, 32 bytes each */
#define STORAGE_CUT_WAYS	4u	/* rows of them that an inode may be in */
#define STORAGE_CUT_GROUPS	64u	/* metadata groups of those it has forgotten */
#define STORAGE_LEFT_BUCKETS	1024u	/* chunks to settle, by their ids */
#define STORAGE_SYNCS		8u	/* replicas a worker brings up to date at once */
#define STORAGE_NEIGHBOURS	16u	/* nodes out of reach that a worker tells of */
#define STORAGE_LIST_PAGE	512u	/* rows of a list asked for at once */
#define STORAGE_TICK_NS		(250 * NS_PER_MS)	/* of a worker */
#define STORAGE_STUCK_TICKS	120u	/* a disk that does not answer has failed */

struct storage_worker;
struct storage_target;
struct storage_sync;
struct storage_pieces;
struct storage_left;

struct storage_disk {
	struct storage_worker *w;
	char	       *path;
	struct disk_dir *dir;
	struct chunk_engine *engine;
	struct storage_scrub *scrub;	/* NULL: not open */
	struct storage_repair *repair;
	struct uid128	id;
	bool		open;		/* engine is usable; set before workers serve */
	bool		flushed;	/* while stopping */
	uint64_t	storing_bytes;	/* payload of stores in flight */
	/* for the main loop */
	atomic_bool	failed;		/* I/O error: refuse everything */
	atomic_uint_least64_t capacity, used;
	atomic_uint_least32_t damaged;	/* chunks */
};

/* One chain of a worker, as routing has it. */
struct storage_view_chain {
	target_id target;		/* ours */
	chain_id  chain;
	uint32_t  version;
	uint8_t	  n, serving_n, active_n;	/* see routing_active_n() */
	uint8_t	  pos;			/* which is ours; it is active below active_n */
	struct uid128 disk;
	target_id replicas[ROUTING_REPLICAS_MAX];
	struct net_addr addrs[ROUTING_REPLICAS_MAX];	/* kind NONE: not known */
	bool	  up[ROUTING_REPLICAS_MAX];	/* its node is */
	bool	  apart[ROUTING_REPLICAS_MAX];
	node_id	  nodes[ROUTING_REPLICAS_MAX];
};
struct storage_view {
	bool	 current;		/* routing knows this very process */
	uint64_t routing;		/* version it was made of */
	uint32_t lease_ms;
	uint32_t n;
	struct storage_view_chain chains[];
};

/* A replica that the chain goes on without, although its node is alive. */
struct storage_fence {
	struct storage_target *t;
	target_id	target;
	node_id		node;
	uint64_t	routing;	/* who acts on nothing older knows of the version */
	struct net_addr addr;
	struct net_call call;
};

struct storage_target {
	struct storage_worker *w;
	struct storage_disk *disk;
	struct storage_view_chain v;	/* as last seen */
	uint32_t    heard;		/* newest chain version that replicas told of, */
	uint64_t    heard_ns;		/* and when */
	bool	    gone;		/* routing does not give it to us any more */
	bool	    seen;		/* by the view being applied */
	struct chunk_craq_target craq;
	uint64_t    attempt;		/* of the last update sent to the successor */
	struct list attempts;		/* those not answered, oldest first */
	uint64_t    wait_ns;		/* the successor owes a word since then; 0: no */
	uint64_t    tried_ns;		/* and was asked last */
	uint32_t    unfit;		/* chain version in which the manager was told that we
					 * have no space for what others have */
	/* on the way into a chain version: storage_target.c */
	struct list in_settling;	/* w->settling */
	bool	    committed;		/* the reading tail has done so with all it had */
	bool	    was_head;		/* in the version that was served before */
	uint32_t    head_since;		/* version; cuts of before are not remembered here */
	struct chunk_id settle_at;	/* pending versions up to it are done, */
	bool	    settle_begun;	/* if any */
	struct clock_defer settle_step;
	struct clock_timer settle_timer;
	unsigned    fence_n;
	uint64_t    fence_until_ns;
	struct storage_fence fences[ROUTING_REPLICAS_MAX];
	/* chunks that the head has to settle: storage_left.c */
	struct list in_scans;		/* w->scans */
	struct chunk_id scan_at;
	bool	    scan_begun;
	struct storage_sync *sync;
};

/* A node that is waited for in vain, or was taken out of chains for that. */
struct storage_neighbour {
	struct storage_worker *w;
	node_id		node;		/* 0: not in use */
	bool		silent, was_silent, apart;
	struct net_addr addr;
	struct msg_committed ask;
	struct net_call call;
	uint64_t	reached_ns;
};

struct storage_cut_row {
	target_id target;
	ino_id	  ino;
	uint32_t  index, epoch;
	uint64_t  at;			/* command of the group */
};
/* Of a metadata group: truncations up to that command may have been forgotten. */
struct storage_cut_past {
	uint32_t  group;
	uint64_t  at;
};

#define STORAGE_STATS(X) \
	X(counter, reads,          "chunk reads that were answered")             \
	X(counter, read_bytes,     "bytes of them")                              \
	X(counter, dirty_reads,    "chunk reads that asked the tail first")      \
	X(counter, failed_reads,   "chunk reads of bytes that are damaged here") \
	X(counter, writes,         "writes by clients, at heads")                \
	X(counter, write_bytes,    "bytes of them")                              \
	X(counter, updates,        "updates by predecessors")                     \
	X(counter, update_bytes,   "bytes of them")                              \
	X(counter, relayed,        "requests passed on to another replica for who cannot reach it") \
	X(counter, repeats,        "writes and updates that were done already")  \
	X(counter, cut_chunks,     "chunks truncated or removed, at heads")      \
	X(counter, moves,          "chain versions that were settled into")      \
	X(counter, settled_chunks, "pending versions committed by that")         \
	X(counter, false_versions, "chain versions that others spoke of and that never were") \
	X(counter, synced,         "replicas brought up to date")                \
	X(counter, compared_chunks, "chunks compared for it")                    \
	X(counter, copied_chunks,  "chunks copied or removed for it")            \
	X(counter, copied_bytes,   "bytes of them")                              \
	X(gauge,   capacity_bytes, "bytes usable for chunks")                    \
	X(gauge,   used_bytes,     "bytes allocated to chunks")                  \
	X(gauge,   buffer_bytes,   "buffers in use")                             \
	X(gauge,   syncing,        "replicas being brought up to date")          \
	X(gauge,   sync_rate,      "bytes a second that may be copied for it; 0: no limit") \
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
	bool		 current;	/* see storage_view, as the next two */
	uint64_t	 routing;
	uint32_t	 lease_ms;
	bool		 running;	/* effects are being taken */
	bool		 stopping;
	unsigned	 flushing;	/* engines */
	struct clock_timer beat;	/* publishes space; waits while stopping */
	uint64_t	 ticks;		/* of it; from 1 on */
	uint64_t	 stop_by_ns;
	struct list	 ops, free_ops;
	unsigned	 free_ops_n;
	struct list	 reads;		/* storage_read requests in hand */
	struct list	 fetches;
	struct list	 pieces;
	struct list	 relays;	/* requests passed on */
	unsigned	 relay_n;
	size_t		 relay_bytes;	/* buffers of them */
	struct list	 cuts;
	struct storage_cut_row *cut_rows;
	unsigned	 cut_row_n;	/* a multiple of STORAGE_CUT_WAYS */
	struct storage_cut_past cut_pasts[STORAGE_CUT_GROUPS];
	unsigned	 cut_past_n;
	struct list	 left, left_trying;	/* chunks to settle (storage_left.c) */
	struct storage_left	*left_buckets[STORAGE_LEFT_BUCKETS];
	unsigned	 left_n, left_busy;
	struct clock_timer left_timer;
	struct list	 scans;		/* targets with more of them */
	struct list	 settling;	/* targets on the way into a chain version */
	struct list	 syncs;		/* all there are, also those that only wait for
					 * their operations to end */
	struct list	 sync_queue;	/* those that wait for a place, first come first */
	unsigned	 syncing;	/* places taken */
	bool		 sync_pumping;	/* they are being given away */
	unsigned	 progress_n;	/* replicas the main loop was told of last */
	uint64_t	 await_ns;	/* the managers were asked last what others have heard */
	struct storage_neighbour neighbours[STORAGE_NEIGHBOURS];
	struct chunk_pace pace;
	struct storage_stat stat;
	struct stat_set	 stat_set;
	atomic_bool	 refresh_asked;
};

/* Posts between loops; heap, and harmless when the storage has been closed meanwhile. */
struct storage_gate {
	atomic_uint refs;
	_Atomic(struct storage *) st;
};
struct storage_told;
struct storage_post;
typedef void storage_post_fn(struct storage *st, struct storage_post *p);
struct storage_post {
	struct clock_post    post;
	struct storage_gate *gate;
	storage_post_fn	    *fn;	/* p and what it owns are freed after it */
	unsigned	     loop;
	int		     rc;
	struct storage_view *view;	/* owned until fn takes it */
	struct storage_told *told;	/* likewise */
	struct storage_progress *progress;	/* likewise */
	struct storage_heard *heard;	/* likewise */
	struct net_addr	     listen;
};

/* A replica that is up to date, or cannot be: the manager has to be told. */
struct storage_told {
	struct storage	*st;
	struct list	 node;
	chain_id	 chain;
	target_id	 target;
	uint32_t	 version, tries;
	int		 rc;		/* 0, or why it will not be */
	struct net_call	 call;
	struct clock_timer timer;
};

/* How far the replicas are that one worker brings up to date. */
#define STORAGE_PROGRESS	16u
struct storage_progress {
	unsigned n, neighbour_n, awaited_n;
	struct msg_sync_status rows[STORAGE_PROGRESS];
	struct msg_neighbour neighbours[STORAGE_NEIGHBOURS];
	node_id awaited[STORAGE_NEIGHBOURS];
};
/* What nodes have heard that are waited for. */
struct storage_heard {
	unsigned n;
	struct msg_heard rows[MEMBER_AWAITED_MAX];
};

enum storage_phase { STORAGE_OPENING, STORAGE_JOINING, STORAGE_SERVING,
	STORAGE_LEAVING, STORAGE_STOPPING, STORAGE_STOPPED };

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
	struct list	 tolds;
	struct storage_progress *progress;	/* one for each worker */
	struct clock_timer view_timer;	/* there was no memory for a view */
	int		 open_rc;
	role_fn		*ready, *stopped, *watch;
	void		*ready_ctx, *stopped_ctx, *watch_ctx;
};

/* ---- storage.c ---- */
/* A post for another loop, to be filled and sent; NULL: no memory. */
struct storage_post *storage_post_make(storage_post_fn *fn);
void	storage_post_send(struct storage *st, unsigned loop, struct storage_post *p);
/* Somebody knows newer routing than we do. From a worker. */
void	storage_refresh(struct storage_worker *w);
/* A disk has failed: tell the manager now. From a worker. */
void	storage_beat_now(struct storage_worker *w);
/* Of worker @loop: it has opened, or stopped. On its loop. */
void	storage_worker_opened(struct storage_worker *w, int rc);
void	storage_worker_stopped(struct storage_worker *w);

/* ---- storage_tell.c ---- */
/* @target has everything under chain version @version, or does not take it for reason @rc:
 * tell the manager until it has heard or knows better. From a worker. 0 or -ENOMEM. */
int	storage_synced(struct storage_worker *w, chain_id chain, uint32_t version,
	    target_id target, int rc);
/* There is no space here for a version that others of the chain may hold: the chain is to go
 * on without us.  Nothing to tell when nobody else serves. */
void	storage_unfit(struct storage_target *t);
/* Routing has changed: drop what it knows already. */
void	storage_told_check(struct storage *st, const struct routing *r);
void	storage_told_free(struct storage_told *told);
/* From a worker: how far its replicas are, for the next beat. */
void	storage_progress(struct storage_worker *w);
unsigned storage_progress_rows(void *ctx, struct msg_sync_status *rows, unsigned max);

unsigned storage_neighbour_rows(void *ctx, struct msg_neighbour *rows, unsigned max);
/* A replica here was dropped while it lives: nobody answers readers by older routing any
 * more, and the managers are told. From a worker. */
void	storage_dropped(struct storage_worker *w);
/* The managers are asked what those have heard that our fences wait for. From a worker. */
void	storage_await(struct storage_worker *w);
unsigned storage_awaited_rows(void *ctx, uint32_t *rows, unsigned max);
void	storage_heard_rows(void *ctx, const struct msg_heard *rows, unsigned n);

/* ---- storage_apart.c ---- */
/* The successor of @t was asked something, or has answered (or nobody has: @rc says so). */
void	storage_apart_asked(struct storage_target *t);
void	storage_apart_answered(struct storage_target *t, int rc);
/* Several times a second. True: the manager should be told now. */
bool	storage_apart_tick(struct storage_worker *w);
/* At most STORAGE_NEIGHBOURS. */
unsigned storage_apart_rows(const struct storage_worker *w, struct msg_neighbour *rows);
void	storage_apart_close(struct storage_worker *w);

/* ---- storage_worker.c ---- */
int	storage_worker_init(struct storage_worker *w, struct storage *st,
	    unsigned loop, const struct storage_conf *conf);
/* Listen and open the disks; storage_worker_opened() follows, later, when 0. */
int	storage_worker_start(struct storage_worker *w, const struct net_addr *listen);
unsigned storage_worker_disks(const struct storage_worker *w);	/* that are open */
/* We have said goodbye: no operation goes on. Drain and flush; storage_worker_stopped()
 * follows. */
void	storage_worker_stop(struct storage_worker *w);
void	storage_worker_close(struct storage_worker *w);
bool	storage_lease(const struct storage_worker *w);
void	storage_disk_failed(struct storage_disk *d, const char *what, int rc);
/* Bytes of buffers that a request of replica @pos of @n may bring the pool to: later
 * replicas get more, so that a full pool never waits for itself around a ring of nodes. */
bool	storage_memory(const struct storage_worker *w, unsigned pos, unsigned n,
	    size_t bytes);

/* ---- storage_care.c ---- */
/* Take a chunk from another replica, as fsd check says. */
void	storage_mend_call(struct storage_worker *w, struct net_req *req);
/* The scrubber and the repair of a disk that is open. 0 or -ENOMEM. */
int	storage_care_open(struct storage_disk *d);
void	storage_care_damaged(void *disk);	/* for struct chunk_engine_conf */
void	storage_care_stop(struct storage_disk *d);
void	storage_care_close(struct storage_disk *d);	/* its engine is closed */

/* ---- storage_target.c ---- */
/* Take a new view; it is freed. */
void	storage_worker_view(struct storage_worker *w, struct storage_view *view);
/* Who may ask what: 0 and the target, or why not. */
enum storage_right {
	STORAGE_READ,		/* of a serving replica */
	STORAGE_WRITE,		/* and cut: of the head */
	STORAGE_UPDATE,		/* of a replica behind another */
	STORAGE_TAIL,		/* what is committed: of the last serving one */
	STORAGE_LIST		/* of an active one: resync, fsd check */
};
int	storage_check(struct storage_worker *w, enum storage_right right,
	    target_id target, chain_id chain, uint32_t version,
	    struct storage_target **out);
/* Another replica says that @chain, of @target, is at @version: lease or not, we answer for
 * no older one, unless the managers say that there is none such. */
void	storage_heard(struct storage_worker *w, target_id target, chain_id chain,
	    uint32_t version);
/* Of the replicas that may still answer readers by an older version: their nodes, each
 * once; and what the managers say of such. */
unsigned storage_fence_nodes(struct storage_worker *w, node_id *nodes, unsigned max);
void	storage_fences_heard(struct storage_worker *w, const struct msg_heard *rows,
	    unsigned n);
/* Targets whose older operations have ended go on into their chain version. */
void	storage_settle(struct storage_worker *w);
/* No chain version after this one: end what is under way. */
void	storage_targets_rest(struct storage_worker *w);
void	storage_targets_close(struct storage_worker *w);

/* ---- storage_op.c ---- */
struct storage_op;
typedef void storage_op_fn(struct storage_op *op, int rc);

/* A whole chunk in memory. */
struct storage_whole {
	struct mem_buf buf;		/* owned; may hold nothing */
	uint8_t	 *data;
	uint32_t  len, crc, epoch, digest;
	uint64_t  version;
	uint8_t	  shift;
	uint32_t  dedupe_n;
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
	const uint32_t *sums;		/* it is damaged: what its blocks' crcs should be */
	struct mem_buf sums_buf;	/* owned: holds them */
	uint32_t  sum_n;
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
	bool		 fore;		/* counts as a client's: storage_pace.c */
	bool		 leaving;	/* call was given up, its server has memory still */
	bool		 over;		/* answered; goes when that has ended */
	/* what is asked for */
	uint8_t		 shift;
	uint32_t	 offset, len, crc;
	uint32_t	 epoch_at;	/* WRITE: as in the message, and so is the next */
	uint64_t	 at;
	struct mem_buf	 buf;		/* owned */
	struct mem_buf	 lent;		/* buf, or the asker's */
	uint8_t		*data;
	const uint32_t	*sums;		/* REPLACE, force: see struct chunk_write */
	uint32_t	 sum_n;
	const struct chunk_dedupe *dedupe;	/* REPLACE */
	uint32_t	 dedupe_n;
	struct chunk_dedupe dedupe_copy[CHUNK_DEDUPE_MAX];
	/* an older version that has to be settled first, or ours whole */
	struct storage_whole whole;
	struct chunk_write store;
	uint32_t	 storing_bytes;
	uint64_t	 start_ns;
	uint64_t	 disk_tick;	/* w->ticks when the disk got it; 0: it has not */
	uint64_t	 forward_ns;	/* first sent to the successor; 0: not yet */
	struct chunk_read load;
	struct net_call	 call;
	struct iovec	 iov;
	struct clock_timer wake;
	struct list	 in_attempts;
	uint64_t	 attempt;
	target_id	 fetch_from;	/* repair: from this one alone; 0: from any */
	bool		 fetch_rotten;	/* some that has it has not got it whole */
	struct storage_pieces *pieces;	/* REPAIR: then; owned; NULL: not yet */
	bool		 anyhow;	/* SYNC: nobody can repair it, send it as it is */
	unsigned	 fetch_at;	/* replica that is asked */
	int		 fetch_rc;	/* why the last one did not give it */
};

/* An operation of our own: fill what is asked for, then start.  NULL: no memory. */
struct storage_op *storage_op_get(struct storage_worker *w, struct storage_target *t);
/* 0: done() follows, maybe before this returns; else it was freed. */
int	storage_op_start(struct storage_op *op);
void	storage_op_drop(struct storage_op *op);
/* Take the core's effects until there are none. */
void	storage_run(struct storage_worker *w);
/* A disk that keeps a request for so long will not answer it any more: it has failed. */
void	storage_ops_watch(struct storage_worker *w);
/* Tear down all operations; nothing calls back. */
void	storage_ops_close(struct storage_worker *w);
/* What goes with the bytes of @version of a chunk. 0; -ENOENT. */
int	storage_whole_of(struct storage_whole *wh, const struct chunk_info *info,
	    uint64_t version);
/* Its buffers go back. */
void	storage_whole_drop(struct storage_whole *wh);
void	storage_dedupe_in(struct chunk_dedupe *out, uint32_t *n,
	    const msg_t_list_dedupe *in);
void	storage_dedupe_out(struct msg_dedupe *out, const struct chunk_dedupe *in,
	    uint32_t n);

/* ---- storage_write.c ---- */
void	storage_write_call(struct storage_worker *w, struct net_req *req);
void	storage_update_call(struct storage_worker *w, struct net_req *req);

/* ---- storage_relay.c ---- */
/* @req names our @via as who passes it on to @target of the same chain. */
void	storage_relay_call(struct storage_worker *w, struct net_req *req,
	    target_id via, target_id target, chain_id chain, uint32_t version);
/* At that one: @via may pass on requests; 0: nobody did. */
bool	storage_relay_from(const struct storage_target *t, target_id via);
/* Several times a second: give up on heads that are silent. */
void	storage_relay_watch(struct storage_worker *w);
/* Chains have new versions. */
void	storage_relay_moved(struct storage_worker *w);
void	storage_relay_close(struct storage_worker *w);

/* ---- storage_read.c ---- */
/* A read of @version here has ended with @rc: what is damaged is noted, a disk that is lost
 * said so; returns 0, ERR_CORRUPT for either, or @rc. */
int	storage_read_rc(struct storage_target *t, struct chunk_id id, uint64_t version,
	    int rc);
/* Likewise of a look-up, for who is no reader. */
int	storage_info_rc(struct storage_target *t, int rc);
void	storage_read_call(struct storage_worker *w, struct net_req *req);
void	storage_committed_call(struct storage_worker *w, struct net_req *req);
void	storage_last_call(struct storage_worker *w, struct net_req *req);
void	storage_reads_close(struct storage_worker *w);

/* ---- storage_cut.c ---- */
void	storage_cut_call(struct storage_worker *w, struct net_req *req);
/* Writes of older epochs than this to that chunk have been cut off. */
uint32_t storage_cut_floor(const struct storage_worker *w, target_id target,
	    struct chunk_id id);
/* A cut of @ino may be forgotten that was made after command @at of its group; 0: who asks
 * does not know. */
bool	storage_cut_forgotten(const struct storage_worker *w, ino_id ino, uint64_t at);
void	storage_cuts_close(struct storage_worker *w);

/* ---- storage_left.c ---- */
/* @op has failed: settle later what it leaves behind. */
void	storage_left_note(const struct storage_op *op);
/* @t has become the head: settle all that was pending there. */
void	storage_left_scan(struct storage_target *t);
void	storage_left_close(struct storage_worker *w);

/* ---- storage_fetch.c ---- */
void	storage_list_call(struct storage_worker *w, struct net_req *req);
void	storage_fetch_call(struct storage_worker *w, struct net_req *req);
/* A page of at most @max chunks after @after (NULL: from the first); lengths and digests
 * are of the newest version, or of the @committed one. 0, -EIO. */
int	storage_list_rows(struct storage_target *t, const struct chunk_id *after,
	    uint32_t max, bool committed, struct msg_list_row *rows, uint32_t *n,
	    bool *more);
void	storage_fetches_close(struct storage_worker *w);

/* ---- storage_pieces.c ---- */
typedef void storage_pieces_fn(struct storage_op *op, int rc);
/* Read what there is of committed version @version here, for a repair; fn follows, unless
 * the operation ends before.  0, -ENOENT, -EIO, -ENOMEM. */
int	storage_pieces_start(struct storage_op *op, uint64_t version,
	    storage_pieces_fn *fn);
/* Another replica has these bytes for that version.  True: no block is missing. */
bool	storage_pieces_add(struct storage_op *op, const uint8_t *data, uint32_t len);
/* Have what was found in op->whole.  False: nothing was. */
bool	storage_pieces_take(struct storage_op *op);
void	storage_pieces_drop(struct storage_op *op);	/* it ends; none is fine */
void	storage_pieces_close(struct storage_worker *w);	/* engines are closed */

/* ---- storage_sync.c ---- */
/* We are the last serving replica and one syncs behind us: bring it up to date. */
void	storage_sync_start(struct storage_target *t);
/* The replica that syncs behind us did not take a chunk, @rc, which it was sent first at
 * @since_ns: nothing of this chain may wait for it long. */
void	storage_sync_refused(struct storage_target *t, int rc, uint64_t since_ns);
/* The chain has moved on, or we stop. */
void	storage_sync_stop(struct storage_target *t);
unsigned storage_sync_rows(struct storage_worker *w, struct msg_sync_status *rows,
	    unsigned max);
/* What the syncing replica is asked for its list with; may be idle. */
struct net_call *storage_sync_call(struct storage_sync *s);
void	storage_syncs_close(struct storage_worker *w);

/* ---- storage_pace.c ---- */
/* A client's request has begun, or ended after @bytes. */
void	storage_fore_begin(struct storage_worker *w);
void	storage_fore_end(struct storage_worker *w, uint64_t bytes);
/* May a copy of about @bytes begin now: 0, and it counts as begun until it is said to have
 * ended; else when to ask again. */
uint64_t storage_pace_wait(struct storage_worker *w, uint64_t bytes);
void	storage_pace_end(struct storage_worker *w, uint64_t bytes);

#endif
