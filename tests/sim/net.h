/* SPDX-License-Identifier: MIT */
/* net.h - a network of simulated nodes in one thread, on the world's clock.
 *
 * What a role sees is TCP: ordered streams that break as a whole.  So faults are late
 * frames, streams that break at any point (also between a request and its reply, or in
 * the middle of a payload), paths that swallow everything for a while, hosts that vanish
 * without a word.  Repeats come from callers that try again.  The same seed gives the
 * same run.
 *
 * Between nodes that have a device streams are one-sided, as over RDMA: requests expose
 * memory, from which the server's device READs a payload and to which it WRITES the
 * reply's, on the world's clock, whatever the node is doing.  It may do so until the reply
 * has come, or its owner has closed the channel; when it touches memory of a call that has
 * ended, the process is ended, and says why. */
#ifndef TESTS_SIM_NET_H
#define TESTS_SIM_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/clock.h"
#include "net/transport.h"

struct sim_net;
struct stat_registry;

struct sim_net_faults {
	uint32_t delay_min_us, delay_max_us;	/* of one frame, one way */
	uint32_t slow_ppm, slow_us;		/* some frames take that much longer */
	uint32_t break_ppm;			/* chance per frame to break its stream */
	uint32_t ghost_us;			/* half of those only seem to break for one end:
						 * what it has sent may come that much later */
	uint32_t bytes_per_us;			/* of a payload; 0: no limit */
	/* of one-sided streams */
	uint32_t op_ppm;			/* chance per READ or WRITE to fail when a part
						 * of it is in place; the stream breaks */
	uint32_t done_us;			/* some completions are seen that much after
						 * their effect */
};

/* What becomes of frames on their way from one node to another. */
enum sim_net_path {
	SIM_NET_CLEAR,
	SIM_NET_SILENT,		/* nothing arrives; streams break after 15 s of it */
	SIM_NET_RESET		/* streams break, connections are refused */
};

/* @world: sim_clock_world(). Calm: 50 to 150 us, no faults.  Running out of memory ends
 * the process. */
struct sim_net *sim_net_open(struct clock *world, uint64_t seed);
/* All hubs must be closed. NULL is fine. */
void	sim_net_close(struct sim_net *n);
void	sim_net_faults(struct sim_net *n, const struct sim_net_faults *f);

/* The network card of sim:@node:@loop on the node's clock; for net_hub_add(). */
struct net_transport *sim_net_transport(struct sim_net *n, uint32_t node,
	    uint16_t loop, struct clock *clock);

/* @node has an RDMA device, or none (as all do at first).  For streams to come. */
void	sim_net_device(struct sim_net *n, uint32_t node, bool there);
/* So many of 256 streams between devices are plain all the same: the set-up failed. */
void	sim_net_plain(struct sim_net *n, unsigned of_256);
/* So many of 256 pieces of memory devices do not take, as over a limit of locked memory. */
void	sim_net_refuse(struct sim_net *n, unsigned of_256);
/* Its device goes away: all streams over it break, those to come are plain. */
void	sim_net_device_lost(struct sim_net *n, uint32_t node);

/* One way.  Streams that are there feel it with their next frame. */
void	sim_net_path(struct sim_net *n, uint32_t from, uint32_t to,
	    enum sim_net_path path);
/* One way: frames take that much longer from now on (0: no longer). */
void	sim_net_lag(struct sim_net *n, uint32_t from, uint32_t to, uint32_t us);
/* Both ways. */
void	sim_net_cut(struct sim_net *n, uint32_t a, uint32_t b,
	    enum sim_net_path path);
/* All paths are clear again. What was swallowed is sent again within a second. */
void	sim_net_heal(struct sim_net *n);

/* The host loses power: say so first, then close what ran there.  Peers hear nothing (a
 * process that merely dies is just closed: its system says goodbye).  They find out by
 * silence; or, once the host is up again, by a reset. */
void	sim_net_host_down(struct sim_net *n, uint32_t node);
void	sim_net_host_up(struct sim_net *n, uint32_t node);

/* Break all streams between two nodes now, as a dying switch would. */
void	sim_net_break(struct sim_net *n, uint32_t a, uint32_t b);
/* fn(ctx, node) as each frame is sent; it must not tear down anything. */
void	sim_net_watch(struct sim_net *n, void (*fn)(void *ctx, uint32_t node),
	    void *ctx);

/* Streams that are there, and frames that have arrived so far. */
unsigned sim_net_streams(const struct sim_net *n);
uint64_t sim_net_frames(const struct sim_net *n);
/* Tell @r what has happened on one-sided streams, until the network is closed. */
void	sim_net_stats(struct sim_net *n, struct stat_registry *r);

#endif
