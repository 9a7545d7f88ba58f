/* SPDX-License-Identifier: MIT */
/* net_impl.h - what the files of tests/sim/net share.
 *
 *   chan -send-> end.out: items by time of arrival -> other end's inbox -> up->frame
 *
 * net.c: nodes and paths; net_card.c: connecting, known memory; net_pipe.c: what travels, and
 * how it breaks; net_chan.c: what a node sees of it; net_offer.c: memory that requests
 * expose; net_verbs.c: what the other end does with it. */
#ifndef TESTS_SIM_NET_IMPL_H
#define TESTS_SIM_NET_IMPL_H

#include "conf/rand.h"
#include "conf/stat.h"
#include "tests/sim/net.h"

#define NODES_MAX	64u		/* whose paths can be named */
#define DEAD_NS		(15 * NS_PER_S)	/* as net/tcp.c has it */
#define RESEND_MIN_NS	(200 * NS_PER_MS)
#define RESEND_MAX_NS	(1000 * NS_PER_MS)
#define VERBS_DEAD_NS	(4 * NS_PER_S)	/* about what net/rdma_cm.c asks for */

/* What has happened on one-sided streams. */
#define SIM_NET_STATS(X) \
	X(counter, reads,       "READs that ended well")                         \
	X(counter, read_errors, "READs that failed when a part was in place")    \
	X(counter, reads_lost,  "READs whose stream ended under them")           \
	X(counter, reads_refused, "READs from memory that was no longer there")  \
	X(counter, reads_dropped, "READs that their owner could not wait for")   \
	X(counter, reads_late,  "READs that were seen long after their effect")  \
	X(counter, writes,      "WRITEs that are in place")                      \
	X(counter, write_errors, "WRITEs that failed when a part was in place")  \
	X(counter, writes_orphaned, "WRITEs that were placed though their sender had closed") \
	X(counter, writes_broken, "WRITEs that were placed though the stream was broken") \
	X(counter, writes_refused, "WRITEs to memory that was no longer there")  \
	X(counter, writes_late, "WRITEs that were seen long after their effect") \
	X(counter, flushed,     "frames that had arrived, but were never seen")  \
	X(counter, streamed,    "payloads that were sent, for their memory was not known") \
	X(counter, refused,     "pieces of memory that a device did not take")   \
	X(counter, devices_lost, "devices that went away with streams on them")  \
	X(counter, done,        "requests whose memory was given back unused")   \
	X(counter, withdrawn,   "requests that were taken back in time")         \
	X(counter, revoked,     "requests whose memory was asked back")          \
	X(counter, revoked_early, "of those, before the server had looked at them") \
	X(counter, revoked_read, "of those, while their payload was being READ")  \
	X(counter, revoked_reply, "of those, when the reply had not begun to leave") \
	X(counter, revoked_late, "of those, after the reply")                    \
	X(counter, held,        "requests that could not be taken back")
STAT_DECLARE(sim_net, SIM_NET_STATS)

/* WRITE is a reply's payload, before its HEAD.  DONE: a request's memory is of no use any
 * more; REVOKE: it is wanted back; ACK, with the sender: its reply is in place. */
enum item_kind { HEAD, BODY, FIN, WRITE, DONE, REVOKE, ACK };
enum rx_state { RX_NONE, RX_ASKED, RX_PULL, RX_DROP };
/* tx->pre: what its impl is. */
enum tx_kind { TX_BODY, TX_OFFER, TX_WRITE };

struct offer;

struct item {
	struct list    node;
	enum item_kind kind;
	uint64_t       at_ns;		/* arrives */
	uint64_t       start_ns, left_ns;	/* BODY: leaves the sender */
	bool	       left, stream;	/* stream: HEAD, with a BODY behind it */
	struct net_tx *tx;		/* BODY, until it has left; WRITE, and the HEAD of
					 * such a reply; NULL: its sender has closed */
	struct offer  *offer;		/* HEAD: what it offers; BODY: what is offered
					 * with it; WRITE: where it goes; DONE, REVOKE */
	struct offer  *answers;		/* HEAD */
	uint8_t	      *copy;		/* WRITE: its bytes, once its sender has closed */
	uint32_t       fails_at;	/* WRITE: when so many bytes are in place */
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
	bool		   stopped;	/* its device touches nothing for it any more */
	bool		   flushed;	/* what arrives here is never seen */
	/* what this end sends */
	struct list	   out, acks;
	struct clock_timer timer;	/* world: the next event of `out` */
	uint64_t	   leaves_ns, arrives_ns, blocked_ns, acked_ns;
	struct list	   exposed;	/* offers of its own */
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
	bool		   broken, one_sided;
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
	struct list	offers, got;	/* of the peer's; got: of which pulls have ended */
	unsigned	reading;
};

struct card {
	struct net_transport t;
	struct sim_net *net;
	struct clock   *clock;
	uint32_t	node;
	uint16_t	loop;
	unsigned	open_n;
	struct net_mem **mem;		/* by address */
	size_t		mem_n, mem_cap;
	unsigned	dels;		/* so often was some taken away */
};

struct net_mem {
	uint8_t *p;
	size_t	 n;
	bool	 refused;		/* the device does not take it: payloads are copied */
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
	bool	      device[NODES_MAX];
	unsigned      plain_of_256, refuse_of_256;
	uint32_t     *down;
	size_t	      down_n;
	uint64_t      frames;
	struct sim_net_stat stat;
	struct stat_set	    stat_set;
	void	    (*watch)(void *ctx, uint32_t node);
	void	     *watch_ctx;
};

/* Memory that a request exposes. */
struct offer {
	struct net_rx  rx;
	struct list    node;		/* of who may use it: chan->offers, or got */
	struct list    mine;		/* of whose it is: end->exposed */
	unsigned       refs;
	struct end    *of, *user;
	struct net_tx *tx;		/* NULL: it ended for its owner */
	struct item   *head, *body;	/* which have not left yet, or not arrived */
	struct net_peer *peer;		/* of the call */
	uint64_t       call;
	unsigned       dels;		/* card's, when all of it was known */
	bool	       rx_open;		/* the payload is undecided, or being READ */
	bool	       far_open;	/* to be answered */
	bool	       told;		/* has been, or by DONE */
	bool	       revoking, revoked;	/* wanted back; the user knows */
	uint32_t       bulk_len, room_len;
	/* the READ */
	bool	       reading, lost;	/* lost: ended before all of it was read */
	struct clock_timer timer;
	struct iovec  *dst;
	unsigned       dst_n;
	uint8_t	      *wire;		/* wire_n bytes under way */
	uint32_t       at, wire_n, fails_at;
	uint64_t       blocked_ns;
	unsigned       iov_n, room_n;
	struct iovec   rows[];		/* payload, then room */
};

static inline struct sim_net *
sim_offer_net(const struct end *e)
{
	return e->pipe->net;
}

static inline bool
sim_offer_chance(const struct end *e, unsigned of)
{
	return rand_chance(&e->pipe->net->rand, 1, of);
}

/* Does what @e sends lead nowhere? */
static inline bool
sim_offer_gone(const struct end *e)
{
	return e->pipe->broken || e->ghost || e->lost || e->stopped;
}

static inline struct offer *
sim_offer_of(const struct net_rx *rx)
{
	return (struct offer *)(uintptr_t)rx;
}

/* ---- net.c ---- */
void	*sim_net_must(void *p);		/* out of memory ends the process */
uint64_t sim_net_now(const struct sim_net *n);
uint64_t sim_net_between(struct sim_net *n, uint64_t min, uint64_t max);
/* How long something takes: one way, and so on. */
uint64_t sim_net_delay(struct sim_net *n);
uint64_t sim_net_frame_delay(struct sim_net *n, const struct end *e, const struct end *to);
enum sim_net_path sim_net_path_of(const struct sim_net *n, uint32_t from, uint32_t to);

/* ---- net_card.c ---- */
extern const struct net_transport_ops sim_card_ops, sim_card_device_ops;
/* Does the device know all of this memory? */
bool	sim_card_knows(const struct card *card, const struct iovec *iov, unsigned n);

/* ---- net_pipe.c ---- */
struct item *sim_pipe_item(enum item_kind kind, size_t bytes);
void	sim_pipe_free_item(struct item *i);
void	sim_pipe_free_items(struct list *items);
void	sim_pipe_free(struct pipe *p);
/* There is news for the node at @e. */
void	sim_pipe_wake(struct end *e);
/* It learns that the stream broke, that much later. */
void	sim_pipe_doom(struct end *e, int rc, uint64_t in_ns);
/* Nothing arrives any more; both ends learn of it, each in its time. */
void	sim_pipe_break(struct pipe *p, int rc);
void	sim_pipe_breaks(struct clock_timer *t);		/* of pipe->breaks: by chance */
/* What has not left @e yet never will, and nothing behind it. */
void	sim_pipe_cut_unleft(struct end *e);
/* Of what @e sends only the first items are kept. */
void	sim_pipe_cut(struct end *e, unsigned keep);
/* So much of what waited has left. */
void	sim_pipe_moved(struct end *e, uint32_t bytes);
/* All of @tx has left: its sender will hear of it. */
void	sim_pipe_tx_left(struct end *e, struct net_tx *tx);
/* When something next happens in what @e sends. */
void	sim_pipe_plan(struct end *e);

/* ---- net_chan.c ---- */
struct chan *sim_chan_new(struct card *card, struct pipe *p, unsigned side);
void	sim_chan_deliver(struct clock_defer *d);	/* of end->news */
/* The parts of sending a frame.  @start: when the first of it leaves. */
struct item *sim_chan_head(struct chan *c, const struct net_tx *tx, uint64_t start);
struct item *sim_chan_body(struct chan *c, struct net_tx *tx, uint64_t start);
void	sim_chan_sent(struct end *e);	/* it is under way */
/* Whether, and since when, we wait for something. */
void	sim_chan_note_rx(struct chan *c);

/* ---- net_offer.c ---- */
bool	sim_offer_send(struct chan *c, struct net_tx *tx, uint64_t start);
int	sim_offer_unsend(struct chan *c, struct net_tx *tx);
void	sim_offer_revoke(struct net_chan *chan, struct net_tx *tx);
void	sim_offer_far_drop(struct net_chan *chan, struct net_far *far);
/* The peer wants it back. */
void	sim_offer_revoked(struct chan *c, struct offer *o);
/* What a HEAD has brought becomes the channel's. */
struct offer *sim_offer_take(struct chan *c, struct item *head);
struct net_rx *sim_offer_rx(struct offer *o);		/* NULL: none */
/* The peer is done with what we have offered: it is sent. Upcalls. */
void	sim_offer_answered(struct chan *c, struct offer *o);
/* The payload that was sent with it has left. True: its tx is not free all the same. */
bool	sim_offer_streamed(struct offer *o);
/* Is it of no use to its user any more? */
void	sim_offer_check(struct chan *c, struct offer *o);
/* It ends for its owner, who gets its tx back. */
struct net_tx *sim_offer_end(struct offer *o);
/* Is there somebody whose memory it is?  Ends the process when that is another's by now. */
bool	sim_offer_allowed(struct offer *o);
void	sim_offer_put(struct offer *o);
/* @i goes: what it knows is known no more. */
void	sim_offer_forget(struct item *i);

/* ---- net_verbs.c ---- */
void	sim_verbs_post_write(struct chan *c, struct net_tx *tx, struct offer *far,
	    uint64_t start);
int	sim_verbs_pull(struct chan *c, struct net_rx *rx, const struct iovec *iov,
	    unsigned n);
void	sim_verbs_drop(struct chan *c, struct net_rx *rx);
/* Tell of a READ that has ended. Upcalls. */
void	sim_verbs_pulled(struct chan *c);
/* The first of what @e sends is a WRITE that arrives. False: that broke the stream. */
bool	sim_verbs_write(struct end *e, struct item *i);
/* The HEAD of a reply has arrived: its sender hears of that. */
void	sim_verbs_ack(struct end *e, struct item *head);
/* The stream breaks: what is under way from @e may still arrive, in part. */
void	sim_verbs_broke(struct end *e);
/* What has come to @e, and what has ended there, may never be seen. */
void	sim_verbs_flush(struct end *e);
/* The device of @e has gone: so have all its queue pairs. */
void	sim_verbs_lost(struct end *e);
/* The owner closes the channel: nothing of its memory is touched any more. */
void	sim_verbs_close(struct chan *c);

#endif
