/* SPDX-License-Identifier: MIT */
/* client_fuse_impl.h - what the files of the mount share; nobody else includes it. */
#ifndef ROLES_CLIENT_FUSE_IMPL_H
#define ROLES_CLIENT_FUSE_IMPL_H

#include <fuse3/fuse_lowlevel.h>

#include "conf/clock.h"
#include "conf/err.h"
#include "conf/list.h"
#include "conf/mem.h"
#include "net/loop.h"
#include "net/msg_meta.h"
#include "roles/client_fuse.h"

#define FUSE_IO_MAX	(1u << 20)	/* bytes of one read or write request */
#define FUSE_GROUPS_KEPT 32u		/* groups of one remembered process */
#define FUSE_GROUPS_SLOTS 256u

/* Supplementary groups of a process, as read from /proc a moment ago. */
struct client_fuse_groups {
	uint64_t at_ns;			/* 0: free */
	pid_t	 pid;
	uint32_t uid, gid, n;
	uint32_t v[FUSE_GROUPS_KEPT];
};

struct client_fuse {
	struct client	    *c;
	struct loop	    *loop;
	struct clock	    *clock;
	struct fuse_session *se;
	struct loop_poll     poll;
	struct clock_timer   again;	/* no memory for a request: later */
	struct fuse_buf	     buf;	/* the request being received, */
	struct mem_buf	     room;	/* into this: devices may send from there */
	bool		     taken;	/* which was kept by the request */
	bool		     greeted;	/* the kernel has said what it can */
	bool		     tuned;	/* its read-ahead is set */
	bool		     stopped;	/* requests are not answered any more */
	struct clock_defer   ended;
	void		   (*unmounted)(void *ctx);
	void		    *ctx;
	struct clock_defer   drained;	/* stopped, and the last request has ended */
	void		   (*stop_fn)(void *ctx);
	void		    *stop_ctx;
	struct list	     reqs, free_reqs;
	unsigned	     free_n;
	struct list	     files, dirs;
	/* rises when a request that changes anything starts and when it ends: listings
	 * kept from before are not trusted for attributes */
	uint64_t	     changes;
	char		    *scratch;	/* a listing being put together */
	size_t		     scratch_size;
	struct client_fuse_groups groups[FUSE_GROUPS_SLOTS];
	uint32_t	     group_list[META_GROUPS_MAX];
	char		    *mountpoint;
};

struct client_fuse_file {
	struct list	    node;	/* f->files */
	struct client_file *file;
};

/* One request from the kernel until it is answered. */
struct client_fuse_req {
	struct list	    node;	/* f->reqs or f->free_reqs */
	struct client_fuse *f;
	fuse_req_t	    req;
	bool		    changes;
	union {
		struct client_op op;
		struct client_io io;
	};
	struct fuse_file_info fi;
	struct client_file *file;	/* open and create */
	struct client_fuse_dir *dir;
	struct mem_buf	    mem;	/* data of a direct write is in there */
	uint64_t	    off;
	size_t		    size;
	bool		    plus;
	uint64_t	    changes_then;
};

/* NULL: @req has been answered ENOMEM. */
struct client_fuse_req *client_fuse_req(struct client_fuse *f, fuse_req_t req,
	    bool changes);
void	client_fuse_req_free(struct client_fuse_req *r);
/* Answer with an error (0: done) and free @r. */
void	client_fuse_reply(struct client_fuse_req *r, int rc);
/* Nobody listens any more: forget the kernel's side; true when it was so. */
bool	client_fuse_stopped(struct client_fuse_req *r);
/* Who asks; groups are good until the next call. */
void	client_fuse_cred(struct client_fuse *f, fuse_req_t req,
	    struct client_cred *out);
void	client_fuse_stat(const struct msg_attr *a, struct stat *st);
void	client_fuse_entry(const struct msg_attr *a, uint64_t ttl_ns,
	    struct fuse_entry_param *e);
static inline double
client_fuse_seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

/* The tables of operations are put together in client_fuse.c. */
void	client_fuse_op_table(struct fuse_lowlevel_ops *ops);	/* client_fuse_op.c */
void	client_fuse_file_table(struct fuse_lowlevel_ops *ops);
void	client_fuse_dir_table(struct fuse_lowlevel_ops *ops);
/* Release all handles. */
void	client_fuse_file_stop(struct client_fuse *f);
void	client_fuse_file_close(struct client_fuse *f);
void	client_fuse_dir_close(struct client_fuse *f);

#endif
