/* SPDX-License-Identifier: MIT */
/* net_impl.h - what the files of tests/sim/net share.
 *
 *   chan -send-> end.out: items by time of arrival -> other end's inbox -> up->frame
 *
 * net.c: nodes, paths, connecting; net_pipe.c: what travels, and how it breaks;
 * net_chan.c: what a node sees of it. */
#ifndef TESTS_SIM_NET_IMPL_H
#define TESTS_SIM_NET_IMPL_H

#include "conf/rand.h"
#include "tests/sim/net.h"

#define NODES_MAX	64u		/* whose paths can be named */
#define DEAD_NS		(15 * NS_PER_S)	/* as net/tcp.c has it */
#define RESEND_MIN_NS	(200 * NS_PER_MS)
#define RESEND_MAX_NS	(1000 * NS_PER_MS)

enum item_kind { HEAD, BODY, FIN };
enum rx_state { RX_NONE, RX_ASKED, RX_PULL, RX_DROP };

struct item {
	struct list    node;
	enum item_kind kind;
	uint64_t       at_ns;		/* arrives */
	uint64_t       start_ns, left_ns;	/* BODY: leaves the sender */
	bool	       left;
	struct net_tx *tx;		/* BODY, until it has left */
	uint32_t       head_len, bulk_len;
	uint8_t	       bytes[];		/* of the head, or of the payload */
};

struct end {
	struct pipe	  *pipe;
	struct chan	  *chan;
	struct clock	  *clock;	/* of the node */
	uint32_t	   node;
	bool		   lost;	/* its host went down: says nothing any more */
	bool		   ghost;	/* told that the stream broke; what it sent before is
					 * still under way */
	/* what this end sends */
	struct list	   out;
	struct clock_timer timer;	/* world: the next event of `out` */
	uint64_t	   leaves_ns, arrives_ns, blocked_ns;
	/* what it gets */
	struct list	   inbox;
	struct clock_defer news;
	struct clock_timer fate;	/* world: it learns that the stream broke */
	int		   fate_rc;
	bool		   connected;
	int		   closed;
};

struct pipe {
	struct list	   node;
	struct sim_net	  *net;
	struct end	   ends[2];
	struct net_addr	   to;
	bool		   broken;
	struct clock_timer syn, breaks;
};

struct chan {
	struct net_chan c;		/* first */
	struct card    *card;
	struct end     *mine, *other;
	unsigned	refs;
	bool		closed, paused;
	enum rx_state	rx_state;
	struct net_rx	rx;
	uint32_t	rx_left;
	struct iovec   *dst;
	unsigned	dst_n;
	struct list	txs, left;
};

struct card {
	struct net_transport t;
	struct sim_net *net;
	struct clock   *clock;
	uint32_t	node;
	uint16_t	loop;
	unsigned	open_n;
};

struct listener {
	struct list    node;
	struct card   *card;
	struct net_addr at;
	net_accept_fn *fn;
	void	      *ctx;
};

struct path {
	enum sim_net_path how;
	uint32_t	  lag_us;
};

struct sim_net {
	struct clock *world;
	struct rand   rand;
	struct sim_net_faults faults;
	struct list   pipes, listeners;
	struct path   paths[NODES_MAX][NODES_MAX];	/* from, to */
	uint32_t     *down;
	size_t	      down_n;
	uint64_t      frames;
	void	    (*watch)(void *ctx, uint32_t node);
	void	     *watch_ctx;
};

/* ---- net.c ---- */
void	*sim_net_must(void *p);		/* out of memory ends the process */
uint64_t sim_net_now(const struct sim_net *n);
uint64_t sim_net_between(struct sim_net *n, uint64_t min, uint64_t max);
/* How long something takes: one way, and so on. */
uint64_t sim_net_delay(struct sim_net *n);
uint64_t sim_net_frame_delay(struct sim_net *n, const struct end *e, const struct end *to);
enum sim_net_path sim_net_path_of(const struct sim_net *n, uint32_t from, uint32_t to);

/* ---- net_pipe.c ---- */
struct item *sim_pipe_item(enum item_kind kind, size_t bytes);
void	sim_pipe_free_items(struct list *items);
void	sim_pipe_free(struct pipe *p);
/* There is news for the node at @e. */
void	sim_pipe_wake(struct end *e);
/* It learns that the stream broke, that much later. */
void	sim_pipe_doom(struct end *e, int rc, uint64_t in_ns);
/* Nothing arrives any more; both ends learn of it, each in its time. */
void	sim_pipe_break(struct pipe *p, int rc);
void	sim_pipe_breaks(struct clock_timer *t);		/* of pipe->breaks: by chance */
/* When something next happens in what @e sends. */
void	sim_pipe_plan(struct end *e);

/* ---- net_chan.c ---- */
struct chan *sim_chan_new(struct card *card, struct pipe *p, unsigned side);
void	sim_chan_deliver(struct clock_defer *d);	/* of end->news */

#endif
