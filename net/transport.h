/* SPDX-License-Identifier: MIT */
/* transport.h - the seam between calls and the network: one table of functions for each
 * way to move frames.  Real: net/tcp.c, net/local.c.  Simulated: tests/sim/net.c.
 *
 * A channel is a two-way, ordered, reliable stream of frames that can only break as a
 * whole.  A frame is a head (32 bytes and a message, net/frame.h) and maybe a payload.
 * Heads arrive whole and in order; a payload is moved by whoever takes it:
 *
 *	receiver   up->frame(head, rx)      ... pull(rx, where to) or drop(rx)
 *	sender     send(tx: head, payload)  ... up->sent(tx): the memory is free again
 *
 * What the two verbs become on each transport:
 *	tcp    payload follows its head on the stream; pull reads it straight into place,
 *	       and the frames behind it wait for that
 *	local  pull copies from the sender's memory into place, once
 *	rdma   a request's head is sent with descriptors of tx->iov and tx->room, which the
 *	       peer sees as an rx and a far; pull(rx) is a READ; a reply with tx->far is
 *	       WRITEs into the room at dst_off, then its head (rx NULL, all in place).
 *	       So a request's memory is the peer's until it answers; who wants it back
 *	       sooner revokes it
 *
 * All calls and upcalls of one transport are on the thread of its clock.  Upcalls come
 * from the loop, never from within a call; within an upcall everything may be called, also
 * close.  Neither calls nor upcalls block. */
#ifndef NET_TRANSPORT_H
#define NET_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "conf/list.h"
#include "net/addr.h"

struct net_transport;
struct net_listener;
struct net_chan;
struct net_far;			/* memory of the peer that a reply may be written to */
struct net_mem;			/* memory known to a device */

/* A payload that has been announced; the channel's, embedded in its own. */
struct net_rx {
	void *owner;		/* whoever takes it keeps what it likes here */
};

/* A frame on its way out; the sender's, until sent, unsent or closed. */
struct net_tx {
	struct list	    node;
	const uint8_t	   *head;	/* valid as long as the frame is the channel's */
	uint32_t	    head_len;
	uint32_t	    bulk_len;	/* sum of iov */
	const struct iovec *iov;	/* payload; the array too must stay */
	unsigned	    iov_n;
	/* for one-sided transports; others look at neither */
	const struct iovec *room;	/* request: where reply payload may go */
	unsigned	    room_n;
	struct net_far	   *far;	/* reply: of the request; consumed */
	const uint32_t	   *dst_off;	/* reply: place of each iov in the room */
	/* the channel's */
	uint64_t	    done;	/* bytes of it that have left */
	uint64_t	    pre;
	void		   *impl;
};

struct net_chan_up {
	/* The connection that was asked for is there. */
	void (*connected)(struct net_chan *);
	/* @head is borrowed until return. @rx: the payload, when bulk_len > 0 and it is
	 * not in place yet; must be pulled or dropped, now or later.  @far: keep it for
	 * the reply, or give it back with far_drop. */
	void (*frame)(struct net_chan *, const uint8_t *head, uint32_t head_len,
	    struct net_rx *rx, struct net_far *far);
	/* A pull ended well; rx is gone. */
	void (*pulled)(struct net_chan *, struct net_rx *rx);
	/* One will not: the sender has taken the payload back.  Nothing of it is written any
	 * more; rx is gone. */
	void (*lost)(struct net_chan *, struct net_rx *rx);
	/* All of @tx has left; it and its payload are the sender's again. */
	void (*sent)(struct net_chan *, struct net_tx *tx);
	/* Less is queued than when the last send was (out_bytes); at least when it falls
	 * to half of what the owner has set as out_mark. */
	void (*drained)(struct net_chan *);
	/* It broke, or the peer closed it: -errno or ERR_BAD_MESSAGE. The last upcall;
	 * the owner must close it, now or later. All rx stay as they are until then. */
	void (*closed)(struct net_chan *, int rc);
};

struct net_chan_ops {
	/* Queue a frame. True: it has been taken whole already (it is small and has no
	 * payload, or answers a request that was revoked and goes nowhere), tx is the
	 * sender's again and sent is not called. */
	bool (*send)(struct net_chan *, struct net_tx *tx);
	/* Take back @tx, which was queued. 0; -EBUSY when part of it has left: then revoke
	 * or close can free its memory. */
	int  (*unsend)(struct net_chan *, struct net_tx *tx);
	/* Have the peer leave the memory of @tx alone, a request of which unsend was
	 * refused: it begins nothing new in it, and once nothing is on its way any more
	 * up->sent comes, as it does when the answer was faster.  What is half sent is sent
	 * to its end first.  How long that takes is up to the peer, so the caller sets a
	 * limit and closes after it.  NULL: only close can free it. */
	void (*revoke)(struct net_chan *, struct net_tx *tx);
	/* Receive a payload into @iov (copied; sums to bulk_len). 1: it is there and rx is
	 * gone; 0: up->pulled will say, or up->lost, or up->closed; -ECONNRESET: the sender
	 * has taken it back and rx is gone. */
	int  (*pull)(struct net_chan *, struct net_rx *rx, const struct iovec *iov,
	    unsigned n);
	/* Do without, or without the rest: no memory is written to any more and rx is
	 * gone when this returns.  Where that cannot be had of a pull that is under way
	 * (one-sided) the channel breaks, so who can wait lets it end. */
	void (*drop)(struct net_chan *, struct net_rx *rx);
	/* NULL: never gives any far. */
	void (*far_drop)(struct net_chan *, struct net_far *far);
	/* While paused no more frames come up; a payload being pulled goes on. */
	void (*pause)(struct net_chan *, bool paused);
	/* Free it, with any rx and far. No upcall any more, memory of pulls and sends is
	 * no longer touched; what was not sent whole is moved to the end of @unsent.
	 * @linger: let bytes taken already reach the peer if the system can. */
	void (*close)(struct net_chan *, struct list *unsent, bool linger);
};

/* Embedded first in a transport's own; the fields are how both sides see it. */
struct net_chan {
	const struct net_chan_ops *ops;
	/* set by the owner, at once when it gets the channel */
	const struct net_chan_up  *up;
	void	*owner;
	uint32_t head_max;	/* longer heads break the channel */
	uint32_t bulk_max;	/* so do longer payloads */
	size_t	 out_mark;	/* see drained */
	/* kept by the transport */
	size_t	 out_bytes;	/* queued and not sent, heads and payload */
	uint64_t rx_ns;		/* when bytes last came */
	uint64_t rx_since_ns;	/* a head or a pull is incomplete since then; 0: none */
	uint64_t tx_since_ns;	/* queued output has not moved since; 0: none queued */
	struct net_addr peer;	/* as far as known */
	bool	 one_sided;	/* looks at room, far and dst_off of a tx */
};

/* A new channel, connected; the callee's from here on. */
typedef void net_accept_fn(void *ctx, struct net_chan *chan);

struct net_transport_ops {
	bool (*serves)(const struct net_transport *, uint8_t addr_kind);
	/* 0; -EADDRINUSE, -EADDRNOTAVAIL, -EINVAL, -EACCES, -ENOMEM, ... */
	int  (*listen)(struct net_transport *, const struct net_addr *at,
	    net_accept_fn *fn, void *ctx, struct net_listener **out);
	void (*listen_addr)(const struct net_listener *, struct net_addr *out);
	void (*unlisten)(struct net_listener *);
	/* The channel is there at once, and up->connected or up->closed follows; frames
	 * sent before that wait. 0, -ENOMEM, -EMFILE, -EADDRNOTAVAIL ... */
	int  (*connect)(struct net_transport *, const struct net_addr *to,
	    struct net_chan **out);
	/* Make @n bytes at @p known to the device, so that payloads in them need no
	 * registration each; found by address. NULL: this transport has no need. */
	int  (*mem_add)(struct net_transport *, void *p, size_t n,
	    struct net_mem **out);
	void (*mem_del)(struct net_transport *, struct net_mem *);
	/* Free it; its listeners and channels have been closed by their owners. */
	void (*close)(struct net_transport *);
};

struct net_transport {
	const struct net_transport_ops *ops;
	struct list node;		/* the hub's */
};

#endif
