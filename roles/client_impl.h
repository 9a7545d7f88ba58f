/* SPDX-License-Identifier: MIT */
/* client_impl.h - what the files of the client share; nobody else includes it.
 *
 *	client.c	open, stop, close; session; pauses; finished requests
 *	client_where.c	which metadata server is asked
 *	client_meta.c	one metadata call with its retries; namespace operations
 *	client_inode.c	inodes in use: attributes, own length, errors, write-back waits
 *	client_file.c	handles: open, create, flush, release
 *	client_write.c	write-back buffers, one write in flight per chunk
 *	client_relay.c	which way a write goes
 *	client_fetch.c	a range of a file from storage: batches, replicas, checksums
 *	client_hedge.c	late reads are asked of another replica, too
 *	client_read.c	reads: end of file, own unwritten data, memory
 *	client_ahead.c	read-ahead of sequential readers */
#ifndef ROLES_CLIENT_IMPL_H
#define ROLES_CLIENT_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/err.h"
#include "conf/list.h"
#include "conf/map.h"
#include "conf/mem.h"
#include "net/call.h"
#include "net/member.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "roles/client.h"
#include "roles/client_health.h"
#include "roles/path.h"

#define CLIENT_BLOCK_MAX	(4u << 20)	/* bytes of one buffered write */
#define CLIENT_WRITES_MAX	128u		/* writes in flight */
#define CLIENT_BATCH_BYTES	(8u << 20)	/* payload of one read call */
#define CLIENT_SEEN_MAX		65536u		/* inodes whose content is remembered */
#define CLIENT_KEEP_MAX		256u		/* free objects kept, each kind */

struct client_inode;
struct client_mcall;

/* ---- client.c ---- */

/* User callbacks may close the client; whoever calls one holds its life, which stays
 * behind until the last of them has looked at it. */
struct client_life {
	uint32_t refs;
	bool	 dead;
};

/* Waiting to try again; routing changes end the wait early. Zero before the first use. */
struct client_pause {
	struct clock_timer timer;
	struct list	   node;
	struct client	  *c;
	void		 (*fn)(struct client_pause *);
	uint32_t	   attempts;	/* so far; makes the next pause longer */
	uint64_t	   routing;	/* version at the last one that waited for it */
};

/* Free objects of one kind, kept by a list node inside them. */
struct client_keep {
	struct list list;
	unsigned    n;
};

/* Which metadata server is asked (client_where.c). */
struct client_where {
	node_id		   node;	/* the one that answered last, or is next */
	struct net_addr	   addr;	/* its address */
	unsigned	   n;		/* how many there are to ask */
	uint64_t	   routing;	/* version that this was found in */
	uint64_t	   heard_ns;	/* when it last said anything */
	unsigned	   open_n;	/* of them, those that are not lost */
	bool		   relay;	/* none of these leads: they pass on */
	uint64_t	   term;	/* of the leader that routing named last */
	struct clock_timer watch;
};

struct client_session {
	struct net_call	    call;
	node_id		    server, via;	/* it was sent to, as it said */
	unsigned	    tries;	/* servers asked since the last pause */
	struct client_pause pause;
	struct clock_timer  timer;
	uint64_t	    epoch;	/* 0: never told */
	uint32_t	    lease_ms;
	bool		    announcing;	/* telling all opens to a new server */
	bool		    leaving, known;
	uint64_t	    sent_ns;	/* the call in flight */
	uint64_t	    sure_ns;	/* what we have open is there until then */
	struct client_file *next;	/* first one it has not been told of */
	struct client_file *page_end;	/* first one after the page in flight */
};

struct client {
	struct role_env	      env;
	struct clock	     *clock;
	const struct conf    *conf;
	const struct log     *log;
	struct uid128	      id;
	struct member	     *member;
	struct mem_pool	     *pool;
	struct client_life   *life;

	role_fn		     *ready_fn, *stop_fn;
	void		     *ready_ctx, *stop_ctx;
	struct clock_defer    ready_defer, stop_defer;
	struct clock_timer    ready_timer;
	int		      ready_rc;
	bool		      is_ready, stopping, left;
	struct client_session session;
	struct list	      paused;
	struct paths	      paths;		/* servers that do not answer us */

	struct list	      io_done, op_done;	/* finished, fn not called yet */
	struct clock_defer    done_defer;
	struct client_stat    stat;
	struct stat_set	      stat_set;

	/* metadata */
	struct client_where   where;
	struct list	      mcalls;		/* in use */
	struct list	      changes;		/* those with a seq, in order */
	struct client_keep    mcall_keep;
	uint32_t	      mcall_n;
	uint64_t	      meta_seq;

	/* inodes and handles */
	struct map	      inodes;
	struct list	      files;		/* announced handles, ascending */
	uint64_t	      next_handle;
	struct map	      seen;
	struct list	      seen_lru;		/* oldest first */

	/* writes */
	struct list	      age;		/* dirty extents, oldest first */
	struct list	      pending;		/* to be written, not their turn yet */
	struct list	      sending;		/* in flight, or waiting to try again */
	struct list	      ready_chunks;	/* wait for a slot */
	struct list	      write_waits;	/* ios held up for memory */
	struct list	      directs;
	struct client_keep    ext_keep, chunk_keep;
	struct clock_timer    age_timer;
	bool		      age_armed;
	uint64_t	      ext_id, write_seq;
	uint32_t	      ext_n, sending_n;
	size_t		      ext_bytes;	/* buffers of extents */
	size_t		      dirty_bytes;	/* of those not asked to be flushed */
	struct clock_timer    relay_watch;

	/* reads */
	struct map	      targets;		/* struct client_target */
	struct client_health  health;
	struct list	      late;		/* read calls by when they are late */
	struct clock_timer    late_timer;
	uint32_t	      turn;
	struct list	      rcalls;		/* read calls in flight */
	struct list	      leaving;		/* of which nobody wants the answer */
	struct client_keep    rcall_keep, read_keep;
	struct list	      reads;		/* all, until client_read_done() */
	struct list	      read_waits;	/* of those: want memory */
	struct list	      read_unsure;	/* and: is their file still there? */
	uint32_t	      read_mem_n;	/* reads that hold memory */
	struct clock_defer    mem_defer;
	struct list	      ahead;		/* all read-ahead blocks, oldest first */
};

struct client_life *client_life_get(struct client *c);
/* True: the client is gone, touch nothing. */
bool	client_life_put(struct client_life *l);

/* Call p->fn after a pause that grows with p->attempts; @refresh: routing may be why. */
void	client_pause_start(struct client *c, struct client_pause *p, bool refresh,
	    void (*fn)(struct client_pause *));
void	client_pause_stop(struct client *c, struct client_pause *p);
/* client.retry has run out for what began at @start_ns. */
bool	client_expired(const struct client *c, uint64_t start_ns);
uint64_t client_deadline(const struct client *c);
/* What the manager or server said is worth another try. */
bool	client_retryable(int rc);

/* Call fn of a request from the loop. */
void	client_io_finish(struct client *c, struct client_io *io, int rc);
void	client_op_finish(struct client *c, struct client_op *op, int rc);
/* A server does not know our session (any more). */
void	client_session_lost(struct client *c);
/* The server holds our opens: no inode that we have open has been removed until now. */
bool	client_session_sure(const struct client *c);
/* @f is about to leave c->files. */
void	client_session_forget(struct client *c, struct client_file *f);
void	client_check_stopped(struct client *c);

/* An object of @bytes whose list node is its first member: kept or zeroed new. */
void   *client_keep_get(struct client_keep *k, size_t bytes);
void	client_keep_put(struct client_keep *k, struct list *node);
void	client_keep_fini(struct client_keep *k);

/* Buffers: read-ahead gives way first; @force: over the bound rather than fail, for what
 * has to go on whatever happens.  0, ERR_BUSY, -ENOMEM. */
int	client_mem_get(struct client *c, size_t len, bool force,
	    struct mem_buf *out);
void	client_mem_put(struct client *c, struct mem_buf *b);

/* ---- client_inode.c ---- */

/* Waits until everything written before is on storage (or has failed). */
struct client_wait {
	struct list node;
	uint64_t    mark;
	void	  (*fn)(struct client_wait *);
};

struct client_inode {
	ino_id		 ino;
	struct client	*c;
	uint32_t	 refs;
	struct msg_attr	 attr;		/* newest we heard; ino 0: nothing yet */
	uint64_t	 epoch_routing;	/* routing we had when we asked for its epoch */
	uint64_t	 epoch_at;	/* and the command by which it had that; 0: not told */
	struct layout	 layout;
	chain_id	*chains;	/* of chunks 0..chain_n-1; 0: not looked up */
	uint32_t	 chain_n;	/* they repeat after this many */
	struct list	 files;
	struct map	 chunks;	/* struct client_chunk by index */
	struct list	 exts;		/* all extents, in the order they were made */
	struct list	 waits;		/* by mark */
	uint64_t	 own_end;	/* end of the furthest unsettled write */
	uint64_t	 acked_end;	/* of those, acknowledged by storage ... */
	uint32_t	 acked_epoch;	/* ... the first of them in this epoch */
	int64_t		 mtime_ns;	/* of the last write */
	uint64_t	 wrote_n;	/* acknowledged writes */
	uint64_t	 settled_n;	/* of those, length told to metadata */
	uint32_t	 ahead_gen;	/* read-ahead of older ones is stale */
	bool		 refreshing;	/* attributes are being fetched */
	bool		 failed;	/* some handle may have an error to report */
	uint64_t	 lost_id, lost_wrote; /* newest extent and writes then said to
					 * be lost */
	int		 gone;		/* not 0: why nothing can be read or written any more */
};

struct client_inode *client_inode_find(struct client *c, ino_id ino);
/* Takes a reference; NULL when memory is out. */
struct client_inode *client_inode_get(struct client *c, ino_id ino);
struct client_inode *client_inode_ref(struct client_inode *i);
void	client_inode_put(struct client_inode *i);
/* Newer attributes have arrived. */
void	client_inode_adopt(struct client_inode *i, const struct msg_attr *attr);
/* What @attr looks like with our own unsettled writes. */
void	client_inode_merge(const struct client_inode *i, struct msg_attr *attr);
uint64_t client_inode_size(const struct client_inode *i);
bool	client_inode_unsettled(const struct client_inode *i);
/* The first @wrote_n writes need not be told to metadata any more. */
void	client_inode_settle(struct client_inode *i, uint64_t wrote_n);
/* Its layout is one that data can be found by. */
bool	client_inode_striped(const struct client_inode *i);
/* The chain of chunk @index; 0: not known yet. */
chain_id client_inode_chain(struct client_inode *i, uint32_t index);
/* It was removed although we have it open: our session had ended. */
void	client_inode_gone(struct client_inode *i);
/* Our session has ended: what was not saved through its handles is lost, and they hear. */
void	client_inode_lost(struct client_inode *i);
/* A write-back failed: every handle shall hear of it. */
void	client_inode_failed(struct client_inode *i, int rc);
/* Start writing back all of @i; false when w->fn will run (maybe much later), true when
 * there is nothing to wait for. */
bool	client_inode_flush(struct client_inode *i, struct client_wait *w,
	    void (*fn)(struct client_wait *));
/* Extents went away: wake those who wait for it. */
void	client_inode_wake(struct client_inode *i);
/* ERR_STALE_EPOCH: fetch the attributes. */
void	client_inode_refresh(struct client_inode *i);

/* Content the kernel may have cached, by the change counter of that time. */
bool	client_seen_same(struct client *c, ino_id ino, uint64_t change);
void	client_seen_set(struct client *c, ino_id ino, uint64_t change);
/* Our own change, and nobody else's, made it @change. */
void	client_seen_step(struct client *c, ino_id ino, uint64_t change);
void	client_seen_fini(struct client *c);

/* ---- client_where.c ---- */

/* The metadata server to ask now: its node; 0: none is known.  @via: what to say of who
 * passes it on. */
node_id	client_where(struct client *c, struct net_addr *out, node_id *via);
/* @node answered a call that said @via with @rc, or did not; @tries: servers that this call
 * has asked since it last paused, counted here.  True: ask again at once, there is another
 * one; false: pause first, or @rc is for who asked. */
bool	client_where_answered(struct client *c, node_id node, node_id via, int rc,
	    unsigned *tries);
/* A call was sent to c->where.node: watch whether anything comes back. */
void	client_where_watch(struct client *c);
/* All calls that wait for @node are sent again, elsewhere. */
void	client_mcall_resend(struct client *c, node_id node);
/* Those that wait for any but @node, for so long: likewise.  Are there some, of any age? */
bool	client_mcall_leave(struct client *c, node_id node, uint64_t patience_ns);
void	client_session_resend(struct client *c, node_id node);
/* The oldest call to @node that has no answer yet, and when it was sent; NULL: none. */
struct net_call *client_mcall_oldest(struct client *c, node_id node, uint64_t *sent_ns);

/* ---- client_meta.c ---- */

#define CLIENT_TEXT_INLINE	640u

/* One metadata call until it is answered, with what its retries need. */
struct client_mcall {
	struct list	    node;	/* first: client_keep */
	struct net_call	    call;
	struct client_pause pause;
	struct client_wait  wait;
	struct list	    seq_node;
	struct client	   *c;
	struct client_op   *op;		/* NULL: our own business */
	void		  (*done)(struct client_mcall *, int rc, const void *rep);
	uint16_t	    method;
	bool		    in_changes, waiting;
	node_id		    server;	/* it was last sent to */
	unsigned	    tries;	/* servers asked since the last pause */
	uint64_t	    start_ns, sent_ns;
	uint64_t	    routing;	/* version that we had when it was first sent */
	struct client_inode *inode;	/* reference, or NULL */
	struct client_file *file;	/* open and create: in the making; flush */
	struct client_file **file_out;
	uint64_t	    ext_mark;	/* newest extent when it was made */
	uint64_t	    wrote_n;	/* writes that are settled by it */
	union {
		struct msg_ctx	    ctx;	/* first in all of them */
		struct msg_lookup   lookup;
		struct msg_ino	    ino;
		struct msg_setattr  setattr;
		struct msg_create   create;
		struct msg_open	    open;
		struct msg_sync	    sync;
		struct msg_mknod    mknod;
		struct msg_symlink  symlink;
		struct msg_link	    link;
		struct msg_name	    name;
		struct msg_rename   rename;
		struct msg_readdir  readdir;
	} req;
	struct msg_entry_rep entry;	/* reply as the caller sees it */
	char		   *big;
	size_t		    text_used, text_cap;
	char		    text[CLIENT_TEXT_INLINE];
};

/* A call with room for @text bytes of names; ctx is filled from @cred (NULL: root). A
 * NULL return has told @op of it already. */
struct client_mcall *client_mcall_new(struct client *c, struct client_op *op,
	    client_op_fn *fn, uint16_t method, const struct client_cred *cred,
	    size_t text);
struct msg_str client_mcall_text(struct client_mcall *m, const char *s);
/* Send it, with retries; @changes: give it a sequence number first. */
void	client_mcall_send(struct client_mcall *m, bool changes);
/* Calls op->fn, when there is one, and forgets @m.  From a reply only. */
void	client_mcall_end(struct client_mcall *m, int rc);
/* The same from anywhere else: op->fn runs from the loop. */
void	client_mcall_end_later(struct client_mcall *m, int rc);
/* Common reply of entry_rep calls: merged attributes and ttl for the caller. */
void	client_mcall_entry(struct client_mcall *m, const struct msg_entry_rep *rep);
void	client_mcall_close_all(struct client *c);
/* 0, -ENOENT, -ENAMETOOLONG. */
int	client_name_check(const char *name);

/* ---- client_file.c ---- */

struct client_file {
	struct client_inode *inode;
	struct list	inode_node;
	struct list	node;		/* c->files, once it is open */
	uint64_t	handle;
	uint32_t	flags;
	int		err;		/* failed write-back, not reported yet */
	bool		unchanged;
	/* read-ahead (client_ahead.c) */
	struct list	blocks;
	uint64_t	next_off;	/* where a sequential reader goes on */
	uint64_t	ahead_end;	/* read ahead up to here */
	uint64_t	window;		/* bytes to keep ahead */
	uint32_t	hits;
	uint32_t	block_n;
};
void	client_files_close_all(struct client *c);

/* ---- client_write.c ---- */

enum client_ext_state { EXT_DIRTY, EXT_READY, EXT_SENDING };

/* The extents of one chunk; the oldest is written first, one at a time. */
struct client_chunk {
	struct list	 node;		/* first: client_keep; c->ready_chunks */
	struct client_inode *inode;
	uint32_t	 index;
	struct list	 exts;
};

/* A contiguous range of one chunk that storage does not have yet. */
struct client_ext {
	struct list	 node;		/* first: client_keep; in the list of its state */
	struct list	 chunk_node, inode_node;
	struct net_call	 call;
	struct client_pause pause;
	struct client	*c;
	struct client_inode *inode;	/* NULL: answered, some read still holds it */
	struct client_chunk *chunk;
	struct client_direct *direct;	/* NULL: write-back */
	uint64_t	 id;		/* order of making */
	uint64_t	 seq;		/* 0: never sent */
	uint64_t	 born_ns, start_ns;
	uint64_t	 pos;		/* of its first byte in the file */
	uint32_t	 off, len, crc;	/* off: in the chunk */
	uint32_t	 epoch;		/* it was sent in */
	uint32_t	 refs;
	uint32_t	 tries;		/* errors that should pass by themselves */
	uint8_t		 state;		/* enum client_ext_state */
	bool		 drop;		/* truncated since: forget it if refused */
	bool		 lost;		/* direct: our session ended before it was sent */
	bool		 given_up;	/* its call, which ends soon; then it goes on */
	int		 rc;		/* fails with this when the pause is over */
	struct mem_buf	 buf;
	const uint8_t	*data;
	struct iovec	 iov;
	chain_id	 chain;
	struct path_way	 way;		/* it was sent last */
};

void	client_ext_put(struct client_ext *e);
/* Ask for it and all before it in its chunk to be written. */
void	client_ext_ready(struct client_ext *e);
/* Forget what was written up to extent number @mark: the file was truncated since. */
void	client_ext_drop(struct client_inode *i, uint64_t mark);
/* Our session has ended: forget all that is not on storage yet. */
void	client_write_lost(struct client *c);
/* Routing has changed: what was sent to a head that is none any more goes again. */
void	client_write_reroute(struct client *c);
void	client_write_all(struct client *c);
/* It is on its way, and nobody has given that up. */
bool	client_ext_under_way(const struct client_ext *e);
/* Send it again, some other way: it is under way.  @silent: to where nothing comes from, so who
 * it was sent to is not asked to let go of its memory first. */
void	client_ext_resend(struct client_ext *e, bool silent);
void	client_write_close_all(struct client *c);

/* ---- client_relay.c ---- */

/* Where to send @e, whose chain is @chain: e->way. 0; -EHOSTUNREACH: it is not known. */
int	client_relay_route(struct client_ext *e, const struct routing_chain *chain);
/* It was sent; watch that somebody is there. */
void	client_relay_sent(struct client_ext *e);
/* That ended with @rc.  True: it should be sent again at once, another way. */
bool	client_relay_ended(struct client_ext *e, int rc);

/* ---- client_fetch.c ---- */

struct client_fetch;
typedef void client_fetch_fn(struct client_fetch *, int rc);

struct client_fpiece {
	uint32_t index, offset, len;
	uint8_t	*dst;
	uint8_t	 state;
	uint32_t tried, hard;		/* replicas, by place in the chain ... */
	uint32_t chain_version;		/* ... of this version */
	int	 rc;			/* last hard error */
};

#define CLIENT_PIECES_INLINE	4u

/* [off, off + len) of a file into memory; holes and what is not there read as zeros. */
struct client_fetch {
	struct client	    *c;
	struct client_inode *inode;	/* reference */
	client_fetch_fn	    *fn;
	struct client_fpiece *pieces, few[CLIENT_PIECES_INLINE];
	unsigned	     n, left;
	int		     rc;
	bool		     active, starting, ending;
	bool		     missing;	/* some bytes were not there: zeros */
	uint64_t	     start_ns;
	struct list	     calls;
	struct client_pause  pause;
};

/* @skip: pieces that need not be fetched because the caller has all their bytes, or NULL.
 * 0: fn runs once, never before this has returned - unless f->left is 0: nothing is to be
 * fetched, fn never runs.  -ENOMEM, -EFBIG, -EIO. */
int	client_fetch_start(struct client_fetch *f, struct client_inode *i,
	    uint64_t off, uint8_t *dst, uint32_t len,
	    bool (*skip)(void *ctx, uint32_t index, uint32_t off, uint32_t len),
	    void *ctx, client_fetch_fn *fn);
/* @dst: where it went, all of it.  While a server may still write there it is taken, and put
 * back when that is over: dst->p is NULL then. */
void	client_fetch_cancel(struct client_fetch *f, struct mem_buf *dst);
void	client_fetch_reroute(struct client *c);
void	client_fetch_close_all(struct client *c);

/* ---- client_read.c ---- */

#define CLIENT_READ_BLOCKS	4u	/* read-ahead blocks one read is served from */

struct client_ahead_ref {
	struct list	      node;	/* in block->waits while it is loading */
	struct client_ahead  *block;
	struct client_read_req *read;
};

struct client_read_req {
	struct list	   node;	/* first: client_keep; c->reads */
	struct list	   wait_node;
	struct client	  *c;
	struct client_io  *io;
	struct client_inode *inode;	/* reference while it is going on */
	uint64_t	   off, start_ns;
	uint32_t	   len;
	struct mem_buf	   buf;
	struct client_fetch fetch;
	struct iovec	   iov[CLIENT_READ_BLOCKS];
	/* own unwritten data to lay over what storage answers, oldest first */
	struct client_ext **exts;
	unsigned	   ext_n, ext_cap;
	/* or served from read-ahead */
	struct client_ahead_ref refs[CLIENT_READ_BLOCKS];
	unsigned	   ref_n, loading;
	bool		   done;
};
/* The session is sure again: answer reads that waited for that. */
void	client_read_sure(struct client *c);
/* Memory was given back. */
void	client_mem_kick(struct client *c);
/* All blocks of a read are loaded, or one has failed. */
void	client_read_ahead_done(struct client_read_req *r, int rc);
void	client_read_close_all(struct client *c);

/* ---- client_ahead.c ---- */

/* One block that was, or is being, read ahead. */
struct client_ahead {
	struct list	 node;		/* c->ahead */
	struct list	 file_node;	/* file->blocks, by offset */
	struct client_file *file;	/* NULL: dropped, somebody still uses it */
	struct client	*c;
	uint64_t	 off, born_ns;
	uint32_t	 len;
	uint32_t	 gen;		/* inode->ahead_gen when it was asked for */
	uint32_t	 refs;
	bool		 loading;
	struct mem_buf	 buf;
	struct client_fetch fetch;
	struct list	 waits;		/* client_ahead_ref.node */
};
/* Serve @r from read-ahead when all of it is there or on its way: true. */
bool	client_ahead_serve(struct client_file *f, struct client_read_req *r);
/* Tell of a read; may start reading ahead. */
void	client_ahead_note(struct client_file *f, uint64_t off, uint32_t len);
void	client_ahead_unref(struct client_ahead *b);
void	client_ahead_drop_file(struct client_file *f);
/* Give back memory; true when some was. */
bool	client_ahead_shrink(struct client *c);
void	client_ahead_close_all(struct client *c);

#endif
