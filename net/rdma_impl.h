/* SPDX-License-Identifier: MIT */
/* rdma_impl.h - what the files of net/rdma share.  Nobody else includes this.
 *
 *   rdma --- rdma_dev --- rdma_chan       device: protection domain, completion queue,
 *     \--- net_mem  (registered ranges)    shared receive queue, slots of SLOT bytes
 *
 * What is said over a queue pair is in net/rdma_wire.h.
 *
 * 1. Every WR has an entry in c->wrs, in order; one completion ends all before it.
 * 2. A slot is free, or in c->wrs, or posted to the SRQ, or in c->held.
 * 3. Memory of an offer (tx with rows) is the peer's until it answers or says DONE, or
 *    the queue pair has been destroyed.  REVOKE asks for DONE; it is said when no READ is in
 *    flight, and travels behind all WRITEs, as answers do.
 * 4. Upcalls come from net_rdma_poll() and work() only, with the channel held; each looks
 *    at c->closed afterwards. */
#ifndef NET_RDMA_IMPL_H
#define NET_RDMA_IMPL_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>

#include "conf/bytes.h"
#include "conf/clock.h"
#include "conf/log.h"
#include "conf/map.h"
#include "net/addr.h"
#include "net/call.h"
#include "net/credit.h"
#include "net/frame.h"
#include "net/loop.h"
#include "net/rdma.h"
#include "net/rdma_port.h"
#include "net/rdma_wire.h"
#include "net/spin.h"
#include "net/transport.h"

#define DEVS_MAX	16u
#define PORTS_MAX	OFFERED_PORTS
#define PORT_ADDRS	8u		/* addresses of a port that are used */
#define READS_MAX	16u		/* of one queue pair, at a time */
#define WRS		128u		/* of one queue pair in flight */
#define CQS_MAX		64u		/* completion queues of a device */
#define SIGNAL_EACH	16u
#define SIGNAL_SLOTS	4u		/* ... or when so many slots wait for it */
#define ONE_SIDED_MAX	(1u << 20)	/* bytes of one READ or WRITE */
#define TURN_READ	(8u << 20)	/* READs of one channel in flight, bytes */
#define INLINE		220u
#define RDMA_RECV	(1ull << 63)	/* wr_id of a receive; the rest: its place */

/* A slab of slots, registered as one. */
struct slab {
	struct list    node;
	struct ibv_mr *mr;
	uint8_t	      *mem;
	size_t	       bytes;
	struct slot   *slots;
};

struct slot {
	struct list  node;
	struct slab *slab;
	uint8_t	    *p;
	uint32_t     len;		/* received */
	uint32_t     at;		/* while posted: its place in recv */
	uint32_t     nth;		/* to be posted to the shared queue */
	bool	     missed;
	struct rdma_chan *chan;		/* in whose own queue; NULL: a shared one */
};

/* A completion queue: of what these queue pairs send; the first one also of all receives. */
struct rdma_cq {
	struct ibv_cq *cq;
	uint32_t       qps_n;
};

struct rdma_dev {
	struct rdma	   *r;
	unsigned	    index;
	char		    name[IBV_SYSFS_NAME_MAX];
	struct ibv_context *ctx;
	struct ibv_device_attr attr;
	struct ibv_pd	   *pd;
	struct ibv_comp_channel *events;
	struct rdma_cq	    cqs[CQS_MAX];
	unsigned	    cqs_n;
	bool		    cq_fixed;	/* the first does not grow any more */
	struct ibv_srq	   *srq;	/* NULL: the device has none */
	struct loop_poll    cq_poll, async_poll;
	uint32_t	    srq_size;
	uint32_t	    promised, posted;	/* receives */
	struct list	    slabs, free;	/* slots */
	uint32_t	    slots_n;	/* of all slabs */
	uint64_t	    slab_ns;	/* there was no room for one more; not before this */
	struct list	    starved;	/* channels that want a slot */
	struct list	    shared;	/* slots in the shared queue, the oldest first */
	struct list	    missed;	/* ... that are thought to have been taken, untold */
	uint32_t	    missed_n;
	uint32_t	    nth, came_nth;	/* the next to be posted; the last that came */
	uint32_t	    look_nth;	/* those before are looked at, */
	struct clock_timer  look;	/* then */
	uint32_t	    doubt;	/* queue pairs that may have taken one */
	uint32_t	    doubt_new;	/* of these, since look was started */
	struct slot	  **recv;		/* by wr_id of the SRQ */
	uint32_t	   *recv_free, recv_n;
	struct map	    chans;		/* qp_num -> struct rdma_chan */
	struct ibv_wc	   *stash;	/* taken from the queue, not handled yet */
	unsigned	    stash_n, stash_at, stash_cap;
	struct clock_timer  again;
	struct loop_spin    spin;	/* started: its completions wake nobody */
	struct net_spin	    spin_for;
	unsigned	    users;	/* channels that point to it */
	bool		    iwarp;
	bool		    ready;	/* all memory is registered with it */
	bool		    dead;
};

struct rdma_at {
	uint8_t		   gid[GID];
	uint8_t		   index;	/* in the port's table */
	uint8_t		   prefix;	/* bits of its subnet */
	uint16_t	   listens_at;
	struct rdma_cm_id *listener;	/* iWARP; else NULL */
};

struct rdma_port {
	struct rdma_dev *dev;
	uint8_t		 port, link, mtu;	/* link: LINK_* */
	uint16_t	 lid;
	uint16_t	 keys[PKEYS_MAX];	/* of partitions */
	uint16_t	 key_at[PKEYS_MAX];	/* their places in the table of the port */
	unsigned	 keys_n;
	struct rdma_at addrs[PORT_ADDRS];	/* the best first */
	unsigned	 addrs_n;
	unsigned	 chans_n;
	_Atomic uint32_t *load;		/* connections of all loops; NULL: not known */
	bool		 down;
	struct net_rdma_port_stat stat;
	struct stat_set	 stat_set;
};

struct net_mem {
	uint8_t	      *p;
	size_t	       n;
	struct ibv_mr *mr[DEVS_MAX];	/* NULL: it did not take it; it is copied */
	uint32_t       tried;		/* bits of devices that were asked */
};

struct rdma {
	struct net_transport t;		/* first */
	struct loop	    *loop;
	struct clock	    *clock;
	const struct log    *log;
	struct net_rdma_conf conf;
	struct rdma_dev	    *devs[DEVS_MAX];	/* NULL: free */
	unsigned	     devs_n;
	struct rdma_port     ports[PORTS_MAX];
	unsigned	     ports_n;
	struct net_mem	   **mem;	/* by address */
	size_t		     mem_n, mem_cap;
	struct list	     dirty;	/* channels with work for the turn's end */
	struct list	     lingering;	/* closed ones whose last words are leaving */
	struct clock_defer   work;
	struct list	     batches;	/* spare ones */
	unsigned	     batches_n;
	unsigned	     open_n, held;
	bool		     closed;
	struct clock_timer   scan;	/* for devices that have come */
	struct clock_timer   drop;	/* those that have gone */
	uint64_t	     scanned_ns;
	uint64_t	     rest_until_ns;	/* finding the way to a peer took too long */
	bool		     catching_up;
	uint64_t	     refused_ns;	/* what a device did not take is tried again then; */
	unsigned	     refused_n;		/* so often it was in vain */
	struct rdma_event_channel *cm;	/* iWARP; else NULL */
	struct loop_poll     cm_poll;
	struct map	     tokens;	/* first bytes -> struct rdma_iw that waits */
	struct {
		const char *what;
		uint64_t    ns;
	} logged[8];			/* when what was last logged */
	unsigned	     logged_at;
	struct net_rdma_stat stat;
	struct stat_set	     stat_set;
};

struct offer {
	struct net_rx	  rx;
	struct list	  node;		/* c->offers, or c->reads while being read */
	struct rdma_chan *chan;
	uint32_t	  number;	/* the peer's; 0: payload in the stream */
	uint32_t	  bulk_len;
	uint32_t	  room_len;	/* sum of the rows of room */
	uint8_t		  iov_n, room_n;
	bool		  rx_open;	/* payload undecided, or being READ */
	bool		  far_open;	/* to be answered */
	bool		  revoked;	/* nothing is begun in it any more */
	bool		  due;		/* in c->done */
	struct out	 *reply;	/* the answer, not all of it posted; NULL: none */
	/* a READ under way; dst is NULL otherwise */
	struct iovec	 *dst;
	unsigned	  dst_n, dst_at;
	size_t		  dst_off;
	uint32_t	  row_at, row_off;
	uint32_t	  unposted, inflight;	/* bytes; READs */
	bool		  by_slots;	/* the device does not know dst; dst_at, dst_off are
					 * where what is in slots goes */
	struct row	  rows[];
};

/* A frame on its way out that could not be taken at once. */
struct out {
	struct rdma_chan *chan;
	struct net_tx	 *tx;
	uint8_t		 *record;	/* all of it but the head */
	uint32_t	  record_len;
	uint64_t	  at;		/* bytes of record, head and stream sent */
	uint32_t	  number;	/* of what it offers; 0: nothing */
	struct offer	 *far;		/* what it answers */
	struct list	  revoke;	/* c->revokes, or none */
	bool		  stream;
	/* WRITEs before the head; then the stream behind it */
	uint32_t	  iov_at;
	size_t		  iov_off;
	uint32_t	  iov_left;
	bool		  writes;	/* sent when they have completed */
	bool		  all;		/* is posted */
};

/* A work request in flight. */
struct wr {
	uint32_t      len;		/* of a READ */
	struct slot  *slot;		/* of a SEND, or a READ by slots; NULL: none */
	struct offer *offer;		/* of a READ */
	struct out   *out;		/* ends with this one */
};

enum rx_state { RX_NONE, RX_ASKED, RX_PULL, RX_DROP };

struct rdma_chan {
	struct net_chan	  c;		/* first */
	struct rdma	 *r;
	struct rdma_dev	 *dev;
	struct rdma_port *port;
	struct net_chan	 *tcp;		/* silent; NULL: gone */
	struct ibv_qp	 *qp;
	struct rdma_cq	 *cq;		/* of what it sends */
	struct rdma_iw	 *iw;		/* how it was connected; NULL: by hand */
	struct list	  dirty, linger, starved;
	struct clock_timer linger_end;
	unsigned	  refs;
	bool		  adopted;	/* no upcalls before */
	bool		  closed, paused, marked;
	bool		  working;	/* what is posted now is flushed soon */
	int		  failed;	/* up->closed is due */
	struct net_credit credit;
	/* in */
	struct list	  recvs;	/* slots posted for it alone */
	struct list	  held;		/* slots that wait: paused, or behind a payload */
	uint8_t		 *record;	/* one that came in parts */
	uint32_t	  record_len, record_at;
	enum rx_state	  rx_state;	/* of a payload in the stream */
	struct offer	 *stream;
	struct iovec	 *dst;
	unsigned	  dst_n, dst_at;
	size_t		  dst_off;
	uint32_t	  rx_left;
	struct list	  offers, reads;
	uint32_t	  reading;	/* bytes of READs in flight */
	uint32_t	  last_number;	/* of the peer's offers that were taken */
	uint32_t	 *early;	/* numbers that were revoked while held */
	uint32_t	  early_n;
	/* out */
	struct list	  txs;		/* net_tx, in order, not all of them posted */
	struct list	  posted;	/* ... posted; exposed, or WRITEs in flight */
	struct map	  exposed;	/* number -> struct out, until answered */
	struct list	  done;		/* offers that must be told as done */
	uint32_t	  done_n;
	struct list	  revokes;	/* outs that must be told as revoked */
	bool		  unwanted;	/* a queued answer is of something revoked */
	uint32_t	  next_number;
	struct batch	 *batch;	/* work requests the device has not seen */
	struct wr	  wrs[WRS];
	uint32_t	  wr_head, wr_tail;	/* next to post, oldest in flight */
	uint32_t	  last_wr;	/* of a lingering one: its end */
	uint32_t	  unsignaled, unsignaled_slots, inline_max;
};

static inline struct rdma_chan *
net_rdma_of(struct net_chan *c)
{
	return container_of(c, struct rdma_chan, c);
}

/* May new connections use it? */
static inline bool
net_rdma_is_up(const struct rdma_port *p)
{
	return p->dev != NULL && !p->down && !p->dev->dead && p->dev->ready &&
	    clock_now(p->dev->r->clock) >= p->dev->r->rest_until_ns;
}

/* Connections that it has. */
static inline unsigned
net_rdma_used(const struct rdma_port *p)
{
	return p->load != NULL ? atomic_load(p->load) : p->chans_n;
}

/* ---- net/rdma_dev.c ---- */

/* Open what conf names, into r->devs and r->ports. */
void	net_rdma_devs_open(struct rdma *r);
/* Open those that have come. */
void	net_rdma_devs_again(struct rdma *r);
/* If it is dead, and no channel points to it any more, close it: soon, but not now.  Some
 * drivers let nobody have a device back before all have closed it. */
void	net_rdma_drop_dead(struct rdma_dev *d);
void	net_rdma_devs_close(struct rdma *r);
/* How many receives may be promised in all. */
uint32_t net_rdma_recvs_max(const struct rdma_dev *d);
/* Room for @credits receives, the completions of one more queue pair, which come in *@cq, and
 * slots for it to send from, more than may wait for a completion.
 * 0, -ENOMEM, -ENOSPC. */
int	net_rdma_reserve(struct rdma_dev *d, uint32_t credits, struct rdma_cq **cq);
void	net_rdma_unreserve(struct rdma_dev *d, uint32_t credits, struct rdma_cq *cq);
/* A free slot; NULL: no memory for more just now. */
struct slot *net_rdma_slot(struct rdma_dev *d);
/* One for @c, which is marked when there is one again.  That comes: see net_rdma_reserve(). */
struct slot *net_rdma_slot_for(struct rdma_chan *c);
void	net_rdma_slot_free(struct rdma_dev *d, struct slot *s);
/* Post a receive for each that is promised. 0 or -errno. */
int	net_rdma_post_recvs(struct rdma_dev *d);
/* Without a shared queue: what was promised on @c, which is in INIT.  0 or -errno. */
int	net_rdma_own_recvs(struct rdma_chan *c);
/* Its queue pair is gone, and with it its own receives. */
void	net_rdma_recvs_end(struct rdma_chan *c);
/* The slot of a receive that has completed. */
struct slot *net_rdma_recv_slot(struct rdma_dev *d, uint64_t wr_id);
/* Post it again, or keep it free when fewer are promised now. */
void	net_rdma_repost(struct rdma_dev *d, struct slot *s);

/* ---- net/rdma_scan.c ---- */

/* Has it an active port, as the kernel tells without opening it?  True also when it does not. */
bool	net_rdma_may_be_up(const struct ibv_device *dev);
/* Has it an active port that conf names?  With iWARP that shows when it listens. */
bool	net_rdma_ports_any(struct rdma_dev *d);
/* What its ports are now goes into r->ports. */
void	net_rdma_ports_read(struct rdma_dev *d);
bool	net_rdma_ports_has(const struct rdma_dev *d);
void	net_rdma_ports_free(struct rdma_dev *d);
/* From now on look for devices, now and then. */
void	net_rdma_scan_start(struct rdma *r);
/* A connection is about to be made: soon, and not too often, look for new devices. */
void	net_rdma_rescan(struct rdma *r);

/* ---- net/rdma_iw.c ---- */

/* Connecting iWARP devices becomes possible.  0 or -errno: there is no rdma_cm. */
int	net_rdma_iw_open(struct rdma *r);
void	net_rdma_iw_close(struct rdma *r);
/* Find the addresses of all iWARP ports, and listen there. */
void	net_rdma_iw_listen(struct rdma *r);
void	net_rdma_iw_unlisten(struct rdma_port *p);
/* An address of an interface, and the bits of its subnet; false: not of IP. */
struct ifaddrs;
bool	net_rdma_if_addr(const struct ifaddrs *i, uint8_t gid[GID], uint8_t *prefix);
/* The queue pair is connected (0) or will not be (-errno).  Not from the call below. */
typedef void net_rdma_iw_fn(void *ctx, int rc);
/* Wait for a caller who says @token, which is made here. 0, -ENOMEM. */
int	net_rdma_iw_await(struct rdma_chan *c, net_rdma_iw_fn *fn, void *ctx,
	    uint8_t token[TOKEN]);
/* Call @to from our address @from. 0 or -errno. */
int	net_rdma_iw_call(struct rdma_chan *c, const uint8_t from[GID],
	    const uint8_t to[GID], uint16_t port, const uint8_t token[TOKEN],
	    net_rdma_iw_fn *fn, void *ctx);
/* No callback after this. None under way is fine. */
void	net_rdma_iw_end(struct rdma_chan *c);

/* ---- net/rdma_mem.c ---- */

/* What others may read and write. */
#define MEM_ACCESS	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
			    IBV_ACCESS_REMOTE_READ)
/* Register memory; NULL with the reason in the log and errno. */
struct ibv_mr *net_rdma_reg(struct rdma_dev *d, void *p, size_t n, int access);
/* Let all devices know @n bytes at @p; what one does not take is copied there. 0, -ENOMEM. */
int	net_rdma_mem_add(struct net_transport *t, void *p, size_t n, struct net_mem **out);
void	net_rdma_mem_del(struct net_transport *t, struct net_mem *m);
/* The registration that @p, @n bytes lie in; NULL: none. */
struct ibv_mr *net_rdma_mr(struct rdma *r, const struct rdma_dev *d,
	    const void *p, size_t n);

/* ---- net/rdma_chan.c ---- */

/* What a channel is before it is adopted; its reference is the set-up's. */
void	net_rdma_chan_init(struct rdma_chan *c, struct rdma *r, struct rdma_port *port);
/* Make a channel of what has been set up. */
void	net_rdma_adopt(struct rdma_chan *c, struct net_chan *tcp);
void	net_rdma_hold(struct rdma_chan *c);
void	net_rdma_put(struct rdma_chan *c);
/* Work for this channel at the turn's end. */
void	net_rdma_mark(struct rdma_chan *c);
void	net_rdma_fail(struct rdma_chan *c, int rc);
/* Nothing of ours is touched any more, by nobody. */
void	net_rdma_stop(struct rdma_chan *c);
/* Its last words have arrived, or will not. */
void	net_rdma_linger_ends(struct rdma_chan *c);
/* The connection below its queue pair is gone. */
void	net_rdma_ended(struct rdma_chan *c);
/* Count @c on its port: it has come (1) or gone (-1). */
void	net_rdma_count(struct rdma_chan *c, int by);

/* ---- net/rdma_cq.c ---- */

/* Poll its queues from the loop. 0 or -errno. */
int	net_rdma_watch(struct rdma_dev *d);
void	net_rdma_unwatch(struct rdma_dev *d);
/* Handle all completions there are.  True: there was one. */
bool	net_rdma_poll(struct rdma_dev *d);
/* The queue pair of @c is about to go: keep what has completed until it is handled.  Of its own
 * only receives count, for its number may be given to another. */
void	net_rdma_save(const struct rdma_chan *c);
/* It is of no use any more: its channels break, new ones go elsewhere. */
void	net_rdma_dev_dies(struct rdma_dev *d);

/* ---- net/rdma.c ---- */

/* The other half of r->held++. */
void	net_rdma_release(struct rdma *r);
/* A message in a log line, if it was not said a moment ago. */
void	net_rdma_say(struct rdma *r, const char *what, const char *dev, int rc);
void	net_rdma_say_why(struct rdma *r, const char *what, const char *dev,
	    const char *why);

/* ---- net/rdma_in.c ---- */

void	net_rdma_received(struct rdma_chan *c, struct slot *s);
/* Go on with what was held back. */
void	net_rdma_resume(struct rdma_chan *c);
int	net_rdma_pull(struct net_chan *chan, struct net_rx *rx,
	    const struct iovec *iov, unsigned n);
void	net_rdma_drop(struct net_chan *chan, struct net_rx *rx);
/* Free what came. True: memory of its owner's was being written to. */
bool	net_rdma_in_close(struct rdma_chan *c);

/* ---- net/rdma_read.c ---- */

/* What a request offers, and a payload in the stream, become. NULL: the channel is lost. */
struct offer *net_rdma_offer_new(struct rdma_chan *c, const struct record *r);
/* See whether @o is at its end: neither payload nor answer are due any more, or it was
 * revoked and nothing of ours is in flight.  Then the peer is told, or it is freed. */
void	net_rdma_offer_check(struct offer *o);
void	net_rdma_far_drop(struct net_chan *chan, struct net_far *far);
/* As pull and drop, of a payload that is not in the stream. */
int	net_rdma_read(struct rdma_chan *c, struct offer *o, const struct iovec *iov,
	    unsigned n);
void	net_rdma_read_drop(struct rdma_chan *c, struct offer *o);
/* Post what READs there is room for. */
void	net_rdma_post_reads(struct rdma_chan *c);
/* @n bytes of @o have been READ into a slot. */
void	net_rdma_landed(struct offer *o, const uint8_t *from, uint32_t n);
void	net_rdma_read_done(struct rdma_chan *c, struct offer *o, uint32_t len);
/* The peer wants back what it offered as @number. Upcalls. */
void	net_rdma_take_revoke(struct rdma_chan *c, uint32_t number);
/* See whether, and since when, we wait for something of a payload or a record. */
void	net_rdma_note_rx(struct rdma_chan *c);
/* Free them all. */
void	net_rdma_offers_close(struct rdma_chan *c);

/* ---- net/rdma_post.c ---- */

/* Have @wr, which has no number yet, posted by the end of the turn; @as is what ends with it,
 * what is inline is copied.  There must be room.  0; or -errno: then the channel is lost. */
int	net_rdma_post(struct rdma_chan *c, const struct ibv_send_wr *wr,
	    const struct wr *as);
bool	net_rdma_wr_room(const struct rdma_chan *c);
/* Post what has been gathered. 0; or -errno: the channel is lost. */
int	net_rdma_flush(struct rdma_chan *c);
/* Forget it; the queue pair is at its end. */
void	net_rdma_unpost(struct rdma_chan *c);
void	net_rdma_batches_free(struct rdma *r);
/* All WRs up to the one numbered @seq have completed. Upcalls. */
void	net_rdma_completed(struct rdma_chan *c, uint32_t seq);

/* ---- net/rdma_out.c ---- */

bool	net_rdma_send(struct net_chan *chan, struct net_tx *tx);
int	net_rdma_unsend(struct net_chan *chan, struct net_tx *tx);
void	net_rdma_revoke(struct net_chan *chan, struct net_tx *tx);
/* Post what may be posted. Upcalls. */
void	net_rdma_pump(struct rdma_chan *c);
/* Nothing of @o is in use any more. Upcall. */
void	net_rdma_sent(struct rdma_chan *c, struct out *o);
/* The peer is done with what was offered. Upcalls. False: it never was. */
bool	net_rdma_answered(struct rdma_chan *c, uint32_t number);
/* Give up what has not been sent.  True: memory of its owner's was in use. */
bool	net_rdma_out_close(struct rdma_chan *c, struct list *unsent);

#endif
