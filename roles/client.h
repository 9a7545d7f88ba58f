/* SPDX-License-Identifier: MIT */
/* client.h - a client of the cluster: routing, metadata and storage calls under one handle.
 * The FUSE mount, `fsd bench` and the simulator's workloads all use this.
 *
 * Everything is asynchronous on one loop.  Operations retry by error row until
 * client.retry (never, by default) and are executed once (client id and sequence number).
 *
 * Data: writes go into per-file buffers of whole chunks (write-back), several chunks and
 * several calls in flight; reads see them.  A failed write-back is reported once, by the next
 * client_fsync() or client_flush() of each handle of that file. */
#ifndef ROLES_CLIENT_H
#define ROLES_CLIENT_H

#include <sys/uio.h>

#include "conf/mem.h"
#include "net/addr.h"
#include "net/msg_meta.h"
#include "roles/role.h"

struct client;
struct client_file;	/* one open handle */
struct member;

/* ready(ctx, 0) once routing, the metadata service and a chain table are there. */
int	client_open(struct client **out, const struct role_env *env,
	    const struct net_addr *managers, unsigned manager_n, const char *mount,
	    role_fn *ready, void *ctx);
/* Release every open file, write back everything, end the session, say goodbye, then
 * call back; only client_close() is legal from here on. */
void	client_stop(struct client *c, role_fn *fn, void *ctx);
/* At once, as a crash: what was not written back is lost, callbacks never run. */
void	client_close(struct client *c);
struct member *client_member(struct client *c);
const struct uid128 *client_id(const struct client *c);
const struct conf *client_conf(const struct client *c);

#define CLIENT_STATS(X) \
	X(counter, calls,         "metadata calls")                              \
	X(counter, reads,         "reads by applications")                       \
	X(counter, read_bytes,    "bytes of them")                               \
	X(counter, writes,        "writes by applications")                      \
	X(counter, write_bytes,   "bytes of them")                               \
	X(counter, stores,        "pieces of chunks stored")                     \
	X(counter, stored_bytes,  "bytes of them")                               \
	X(counter, store_errors,  "pieces of chunks that could not be stored")   \
	X(counter, retries,       "metadata calls, reads and stores sent again") \
	X(counter, relayed,       "metadata calls and stores that another server was asked to pass on") \
	X(counter, failovers,     "pieces of chunks another replica was asked for") \
	X(counter, hedges,        "reads that were late and asked of another replica too") \
	X(counter, hedge_wins,    "of those, reads that the other one answered first") \
	X(counter, crc_failures,  "pieces of chunks that failed their checksum") \
	X(counter, copied_bytes,  "data copied from one buffer to another: gathered, small, laid over") \
	X(counter, fuse_requests, "requests of the kernel")                      \
	X(gauge,   dirty_bytes,   "buffers of data that is not stored yet")      \
	X(hist,    call_ns,       "time of a metadata call, retries included")   \
	X(hist,    read_ns,       "time of a read by an application")            \
	X(hist,    write_ns,      "time to store a piece of a chunk")
STAT_DECLARE(client, CLIENT_STATS)
/* To be changed on the client's loop. */
struct client_stat *client_stats(struct client *c);

/* Who asks; groups are borrowed for the call that takes it. */
struct client_cred {
	uint32_t  uid, gid;
	uint32_t *groups;
	uint32_t  group_n;
};

/* ---- metadata operations ----
 * Each takes a request that its owner embeds, and calls fn once, never before it has
 * returned; the reply is borrowed for the call.  rc: 0, -errno, or an error row when
 * client.retry ran out. */
struct client_op;
typedef void client_op_fn(struct client_op *op, int rc);
struct client_op {
	/* in fn, rc == 0: which one depends on the operation */
	union {
		const struct msg_entry_rep    *entry;
		const struct msg_readdir_rep  *readdir;
		const struct msg_readlink_rep *readlink;
		const struct msg_unlink_rep   *unlink;
		const struct msg_statfs_rep   *statfs;
	};
	uint64_t      ttl_ns;		/* entry, readdir: cache until sent + ttl, as what is
					 * left of it now */
	client_op_fn *fn;
	struct list   node;		/* the client's */
	void	     *impl;		/* the client's */
	int	      rc;		/* the client's */
};

void	client_lookup(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id parent, const char *name);
/* Attributes as this client sees them: size and mtime include what it has written. */
void	client_getattr(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id ino);
/* @set: the fields named by set->valid (META_SET_*); ctx and ino are filled in.  A size
 * change first writes back, and drops what lies beyond it. */
void	client_setattr(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id ino, const struct msg_setattr *set);
void	client_mkdir(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id parent, const char *name,
	    uint32_t mode);
void	client_mknod(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id parent, const char *name,
	    uint32_t mode, uint64_t rdev);
void	client_symlink(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id parent, const char *name,
	    const char *target);
void	client_readlink(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id ino);
void	client_link(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id ino, ino_id parent,
	    const char *name);
void	client_unlink(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id parent, const char *name);
void	client_rmdir(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id parent, const char *name);
void	client_rename(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id parent, const char *name,
	    ino_id new_parent, const char *new_name, uint32_t flags);
void	client_readdir(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id ino, uint64_t cookie,
	    uint32_t max_bytes, bool plus);
void	client_statfs(struct client *c, struct client_op *op, client_op_fn *fn);

/* ---- open files ---- */
/* On success *file is set before fn runs; end it with client_release(). @flags: Linux open
 * flags. op->entry is the inode. */
void	client_file_open(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id ino, uint32_t flags,
	    struct client_file **file);
void	client_file_create(struct client *c, struct client_op *op, client_op_fn *fn,
	    const struct client_cred *cred, ino_id parent, const char *name,
	    uint32_t mode, uint32_t flags, struct client_file **file);
ino_id	client_file_ino(const struct client_file *f);
/* For set->handle of client_setattr(): the open that allows a size change. */
uint64_t client_file_handle(const struct client_file *f);
/* Kernel pages of this inode may be kept: content unchanged since this client last told
 * the kernel about it. */
bool	client_file_unchanged(const struct client_file *f);
/* Write back the file, settle its length, report errors: close(2). */
void	client_flush(struct client_file *f, struct client_op *op, client_op_fn *fn);
/* The same, and durable: fsync(2). */
void	client_fsync(struct client_file *f, struct client_op *op, client_op_fn *fn);
/* The handle ends here; write-back goes on by itself. */
void	client_release(struct client_file *f);

/* ---- data ---- */
struct client_io;
typedef void client_io_fn(struct client_io *io, int rc);
struct client_io {
	/* in fn, rc == 0 */
	uint64_t      done;		/* bytes; a read is short only at the end of file */
	/* read: where the bytes are until client_read_done() */
	struct iovec *iov;
	unsigned      iov_n;
	client_io_fn *fn;
	struct list   node;		/* the client's */
	void	     *impl;		/* the client's */
	int	      rc;		/* the client's */
};
/* Read [off, off + len) of @f into buffers of the client; fn with io->iov.  After fn
 * with rc 0 the caller must call client_read_done() once the bytes are used.  @len is at
 * most CLIENT_READ_MAX (-EINVAL). */
#define CLIENT_READ_MAX	(64u << 20)
void	client_read(struct client_file *f, struct client_io *io, client_io_fn *fn,
	    uint64_t off, uint64_t len);
void	client_read_done(struct client *c, struct client_io *io);
/* Memory that devices know, for @data of direct writes: from other memory TCP sends without a
 * copy, RDMA with one.  Over client.memory rather than not at all; 0 or -ENOMEM. */
int	client_data_get(struct client *c, size_t len, struct mem_buf *out);
void	client_data_put(struct client *c, struct mem_buf *b);
/* Write; @data is copied before this returns, unless @direct: then it is borrowed until fn,
 * and fn means stored on all replicas.  Otherwise fn may come before that (write-back),
 * held up when client.memory is used up.  io->done is the bytes taken: fewer than @len
 * only when memory ran out in the middle.  -EBADF for a handle that is open for reading;
 * -EFBIG past the largest file; and, after a failed write-back that neither client_fsync()
 * nor client_flush() of this handle has reported yet, that error. */
void	client_write(struct client_file *f, struct client_io *io, client_io_fn *fn,
	    uint64_t off, const void *data, uint64_t len, bool direct);

#endif
