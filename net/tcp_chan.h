/* SPDX-License-Identifier: MIT */
/* tcp_chan.h - what net/tcp.c, net/tcp_in.c and net/tcp_out.c share: one socket.  Nobody
 * else includes this.
 *
 * 1. Between upcalls [cur, end) is empty or lies in c->in.
 * 2. rx is NONE or ASKED, or [cur, end) is empty: a pull or drop takes what is there.
 * 3. Upcalls are made from chan_work(), net_tcp_readable() and net_tcp_writable() only,
 *    while a reference is held; each looks at c->closed afterwards.
 * 4. c->txs are in order; sum of pre and c->tail is what the run holds. */
#ifndef NET_TCP_CHAN_H
#define NET_TCP_CHAN_H

#include <uv.h>

#include "conf/clock.h"
#include "conf/log.h"
#include "net/loop.h"
#include "net/tcp.h"
#include "net/transport.h"

#define READ_BYTES	(16u << 10)	/* the loop's receive buffer */
#define TURN_BYTES	(4u << 20)	/* of one channel in one turn, each way */
#define IOV_N		256u
#define DST_N		8u		/* parts of a pull without malloc */

enum rx_state { RX_NONE, RX_ASKED, RX_PULL, RX_DROP };

struct tcp {
	struct net_transport t;
	struct loop   *loop;
	struct clock  *clock;
	const struct log *log;
	struct list    dirty;		/* channels with work for the turn's end */
	struct clock_defer work;
	unsigned       open_n;		/* listeners and channels */
	unsigned       held;
	bool	       closed;
	struct net_tcp_stat stat;
	struct stat_set stat_set;
	uint8_t	      *spare_run;
	uint8_t	       buf[READ_BYTES];
};

struct tcp_chan {
	struct net_chan c;		/* first */
	struct tcp     *tcp;
	uv_poll_t	poll;
	int		fd;
	int		events;		/* being polled for */
	unsigned	refs;		/* open, held, the poll handle */
	bool		connecting, connected_due, paused, closed, blocked;
	int		failed;		/* tell up->closed */
	struct list	dirty;
	/* in */
	uint8_t	       *in;
	size_t		in_cap;
	const uint8_t  *cur, *end;
	enum rx_state	rx_state;
	struct net_rx	rx;
	uint32_t	rx_left;	/* bytes of payload still to come */
	struct iovec   *dst, dst_few[DST_N];
	unsigned	dst_n, dst_at;
	/* out */
	uint8_t	       *run;
	size_t		run_at, run_end;
	uint64_t	tail;
	struct list	txs, left;
};

static inline struct tcp_chan *
net_tcp_of(struct net_chan *c)
{
	return container_of(c, struct tcp_chan, c);
}

/* ---- net/tcp.c ---- */

/* Poll for what the channel's state asks for. */
void	net_tcp_watch(struct tcp_chan *c);
/* Something to do for this channel when the running callbacks are done. */
void	net_tcp_mark(struct tcp_chan *c);
/* It broke.  now: from where upcalls may be made, as the last thing. */
void	net_tcp_fail_later(struct tcp_chan *c, int rc);
void	net_tcp_fail_now(struct tcp_chan *c, int rc);

/* ---- net/tcp_in.c ---- */

bool	net_tcp_wants_to_read(const struct tcp_chan *c);
void	net_tcp_readable(struct tcp_chan *c);
/* Hand up what came earlier and could not be then. False: it broke or was closed. */
bool	net_tcp_resume(struct tcp_chan *c);
int	net_tcp_pull(struct net_chan *chan, struct net_rx *rx,
	    const struct iovec *iov, unsigned n);
void	net_tcp_drop(struct net_chan *chan, struct net_rx *rx);
void	net_tcp_pause(struct net_chan *chan, bool paused);

/* ---- net/tcp_out.c ---- */

bool	net_tcp_send(struct net_chan *chan, struct net_tx *tx);
int	net_tcp_unsend(struct net_chan *chan, struct net_tx *tx);
/* Send until the socket is full, or more than @turn bytes. 0 or -errno. No upcalls. */
int	net_tcp_flush(struct tcp_chan *c, size_t turn);
void	net_tcp_writable(struct tcp_chan *c);

#endif
