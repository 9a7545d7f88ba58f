/* SPDX-License-Identifier: MIT */
/* rdma.h - frames and payloads over verbs (reliable connections).
 *
 * A connection begins on TCP.  When both ends have proved themselves (net/hello.h) and both
 * have a port that matches, it goes on over a queue pair; the TCP connection stays, silent,
 * and tells at once when the peer's process is gone.  Otherwise all goes on over TCP:
 *
 *	client                                            server
 *	offer: ports                                  ->           net_rdma_offer
 *	            <-  answer: which port, queue pair      net_rdma_take
 *	ready: queue pair                             ->  (client ready to receive)
 *	            <-  go                                        (server too)
 *
 * With iWARP librdmacm connects, between answer and ready, see net/rdma_iw.c.
 *
 * Frame heads are SENDs into a shared receive queue, under credits (net/credit.h).  A
 * request names the memory of its payload and of its reply's when that is registered
 * (net_mem_add()): the server READs the one and WRITEs to the other.  What is not registered
 * follows its head in SENDs and is copied at both ends; net_rdma_stat counts that. */
#ifndef NET_RDMA_H
#define NET_RDMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/stat.h"

struct log;
struct loop;
struct net_addr;
struct net_chan;
struct net_transport;
struct net_rdma_setup;

#define NET_RDMA_WORDS	2048u		/* longest message of the set-up */

/* How many connections use a port, of all loops of a process: without it, loops that have one
 * each would all take the first port. */
#define NET_RDMA_LOADS	64u
struct net_rdma_load {			/* zero it before the first use */
	struct {
		_Atomic uint32_t name;	/* a hash of it; 0: free */
		_Atomic uint32_t used;
	} rows[NET_RDMA_LOADS];
};

struct net_rdma_conf {
	const char *devices;	/* see net_rdma_named(); "" or NULL: all */
	uint32_t    credits;	/* receives promised to each peer, 4 to 1024 */
	bool	    own_receives;	/* tests: as if no device had shared queues */
	uint8_t	    traffic_class, service_level;	/* of packets; not of iWARP */
	uint32_t    spin_us;	/* look for completions so long before sleeping; 0: never */
	struct stat_registry *stats;	/* NULL: nowhere; borrowed */
	struct net_rdma_load *load;	/* NULL: this loop is the only one; borrowed */
};

/* Of a loop. */
#define NET_RDMA_STATS(X) \
	X(counter, refusals,     "set-ups that ended on TCP")                    \
	X(counter, unregistered, "times that a device did not take a piece of memory") \
	X(gauge,   regions,      "registered pieces of memory")                  \
	X(gauge,   posted,       "receives posted")
STAT_DECLARE(net_rdma, NET_RDMA_STATS)

/* Of a port, with labels device, port, link and gid. */
#define NET_RDMA_PORT_STATS(X) \
	X(gauge,   up,           "1: new connections may use it")                \
	X(gauge,   mtu,          "bytes of a packet, at most")                   \
	X(gauge,   connections,  "queue pairs")                                  \
	X(gauge,   credits,      "messages that peers may have on the way to us") \
	X(counter, sends,        "messages sent")                                \
	X(counter, works,        "messages, READs and WRITEs given to the device")   \
	X(counter, posts,        "times it was told of them, of several at once")  \
	X(counter, waits,        "times that messages waited for a credit of the peer's") \
	X(counter, read_bytes,   "payload taken from peers by RDMA READ")        \
	X(counter, write_bytes,  "payload given to peers by RDMA WRITE")         \
	X(counter, copied_bytes, "payload copied, for it lay in memory unknown to the device") \
	X(counter, revokes,      "requests whose memory was wanted back before an answer") \
	X(counter, errors,       "connections broken by a completion in error")
STAT_DECLARE(net_rdma_port, NET_RDMA_PORT_STATS)

/* Open every device that conf names, and whatever of these comes later.  For net_hub_add(),
 * which owns it then; borrowed: @loop, @log.  0, -ENOMEM. */
int	net_rdma_open(struct net_transport **out, struct loop *loop,
	    const struct log *log, const struct net_rdma_conf *conf);
/* Is there a port that new connections may use?  While there is none all goes over TCP; one
 * that has come is soon seen. */
bool	net_rdma_any(struct net_transport *t);
/* "rxe0:1 mlx5_0:1": what has been opened. */
void	net_rdma_devices(const struct net_transport *t, char *out, size_t n);
bool	net_rdma_is(const struct net_transport *t);
/* The sum over its ports. */
void	net_rdma_traffic(const struct net_transport *t, struct net_rdma_port_stat *sum);

/* Words that nothing was taken for; @rc as of net_rdma_take(). */
typedef void net_rdma_said_fn(void *ctx, int rc, const uint8_t *words, uint32_t n);
/* Client, on a TCP channel of which nobody has been sent a request: the first words, at most
 * NET_RDMA_WORDS.  0 or -ENOMEM. */
int	net_rdma_offer(struct net_transport *t, struct net_rdma_setup **out,
	    net_rdma_said_fn *said, void *ctx, uint8_t *words, uint32_t *n);
/* Take what @peer said, and give the answer (*out_n 0: none, or it comes by @said).  *s is
 * NULL with a server at first.  Returns
 *   0                 more must come
 *   1                 done: send the answer, then go on with net_rdma_chan()
 *   2                 done: send the answer, then go on over TCP
 *   ERR_BAD_MESSAGE   not the words that were due: close */
int	net_rdma_take(struct net_transport *t, struct net_rdma_setup **s,
	    net_rdma_said_fn *said, void *ctx, const struct net_addr *peer,
	    const uint8_t *in, uint32_t in_n, uint8_t *words, uint32_t *out_n);
/* The words of who has no device, to an offer.  Bytes. */
uint32_t net_rdma_decline(uint8_t *words);
/* The channel that has been set up; @s and @tcp are its own from here on. The caller sets
 * up, owner and limits as of an accepted one. */
struct net_chan *net_rdma_chan(struct net_rdma_setup *s, struct net_chan *tcp);
void	net_rdma_abandon(struct net_rdma_setup *s);	/* NULL is fine */

#endif
