/* SPDX-License-Identifier: MIT */
/* client_fuse.h - a mount of the file system, over one struct client and one loop.
 *
 *	client_open, ready -> client_fuse_open -> ... -> unmounted()
 *	    -> client_fuse_stop -> client_stop -> client_fuse_close, client_close
 * /dev/fuse is one more descriptor of the loop; every request is asynchronous and no
 * thread waits. */
#ifndef ROLES_CLIENT_FUSE_H
#define ROLES_CLIENT_FUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "roles/client.h"

struct loop;
struct client_fuse;

struct client_fuse_opts {
	const char *fsname;	/* what `df` shows; NULL: "fsd" */
	bool	    allow_other;	/* for other users than who mounts */
	bool	    read_only;
};

/* Mount at @mountpoint (absolute; type fuse.fsd), by mount(2) as root, else through
 * fusermount3.  @c must be ready.  unmounted(ctx) runs once, from the loop, when somebody
 * has unmounted it (or the kernel gave up); the handles of its files are released by
 * then.  0, or -errno; libfuse has said why on stderr. */
int	client_fuse_open(struct client_fuse **out, struct client *c,
	    struct loop *loop, const char *mountpoint,
	    const struct client_fuse_opts *opts, void (*unmounted)(void *ctx),
	    void *ctx);
/* Unmount (lazily; unless that has happened), take no more requests, release all handles;
 * then fn(ctx), once, when the last request has ended: client_stop() writes back what is
 * left.  unmounted() will not run any more. */
void	client_fuse_stop(struct client_fuse *f, void (*fn)(void *ctx), void *ctx);
/* At once.  When requests may be in flight, client_close() must have come before or comes
 * next, without a turn of the loop in between. NULL is fine. */
void	client_fuse_close(struct client_fuse *f);

#endif
