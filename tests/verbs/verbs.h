/* SPDX-License-Identifier: MIT */
/* verbs.h - RDMA devices that are not there, for tests on machines without one: a program that
 * is linked with verbs.o has these instead of libibverbs (see the Makefile).
 *
 * What is posted is done later, in small steps of queue pairs chosen at random (SEED), when
 * the loop looks for completions or for what the device has to say; payloads move in parts.
 * Rules of verbs that hardware punishes late, or not at all, are asserted here: receives are
 * posted before messages come, queues do not overflow, memory is registered and stays until
 * what was posted has completed, what is freed is not used any more. */
#ifndef TESTS_VERBS_H
#define TESTS_VERBS_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#define VERBS_DEVICES	2u

struct verbs {
	/* set by tests; verbs_reset() makes them what a good device has */
	struct {
		bool gone;		/* see verbs_plug() */
		bool down;		/* its port */
		bool ib;		/* InfiniBand; else RoCE */
		enum ibv_mtu mtu;
		uint16_t lid, keys[64];	/* partitions; 0: none at that place */
		uint8_t gids[2][16];	/* all zero: none */
	} dev[VERBS_DEVICES];
	bool	 no_srq, no_resize;
	int	 max_cqe, max_cq, max_srq_wr;
	unsigned mrs_max, qps_max;	/* more are refused with ENOMEM */
	unsigned inline_max;
	bool	 still;			/* nothing is done at all */
	unsigned lost_ms;		/* connecting blocks so long and finds no way; 0: it does */
	/* counted since then */
	uint64_t sends, reads, writes, errors, lost;
	uint64_t inlined;		/* of the sends */
	uint64_t woken;			/* times that completions woke somebody */
	uint64_t told;			/* completions of what was sent, READ and written */
	unsigned opens;			/* of devices */
	unsigned qps, mrs, cqs;		/* that there are */
	struct ibv_qp_attr way[VERBS_DEVICES];	/* of the last queue pair that was connected */
};

extern struct verbs verbs;

/* All are as new.  Nothing may be left of before. */
void	verbs_reset(void);
/* Device @i is put in, or taken out.  The first one is there. */
void	verbs_plug(unsigned i, bool there);
/* The queue pair numbered @n breaks with @status at its next work request, or at once when
 * @status is a success: then an event says so. */
void	verbs_break_qp(uint32_t n, enum ibv_wc_status status);
/* It breaks within a message: the receive that this has taken is told of by nobody, but see
 * verbs_tell().  Its number. */
uint64_t verbs_tear_qp(uint32_t n);
/* That receive has failed, says @cq after all. */
void	verbs_tell(struct ibv_cq *cq, uint64_t wr_id);
/* Receives that are in @srq. */
unsigned verbs_srq_n(const struct ibv_srq *srq);
/* All owners of device @i hear of @type. */
void	verbs_event(unsigned i, enum ibv_event_type type);
/* @p, @n bytes, comes as a message to the queue pair numbered @qpn. */
void	verbs_deliver(uint32_t qpn, const void *p, uint32_t n);

#endif
