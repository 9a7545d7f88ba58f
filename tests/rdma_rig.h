/* SPDX-License-Identifier: MIT */
/* rdma_rig.h - a client and a server over devices of tests/verbs, seen from inside: for
 * test_rdma*.c.  Devices that are there: tests/vm. */
#ifndef TESTS_RDMA_RIG_H
#define TESTS_RDMA_RIG_H

#define SOME	300000u

#include "tests/call_rig.h"

#include "net/rdma_impl.h"
#include "tests/verbs/verbs.h"

static inline struct rdma *
rdma_of(unsigned i)
{
	return container_of(rig.rdma[i], struct rdma, t);
}

/* The first channel of the client (0) or of the server (1) that there is. */
static inline struct rdma_chan *
chan_of(unsigned i)
{
	struct rdma *r = rdma_of(i);
	size_t it = 0;

	for (unsigned k = 0; k < r->devs_n; k++)
		if (r->devs[k] != NULL && r->devs[k]->chans.n > 0)
			return map_next(&r->devs[k]->chans, &it, NULL);
	ck_abort_msg("no channel\n%s", rig.logged);
	return NULL;
}

static inline void
begin(int kind)
{
	open_served(kind);
	fill(shelf, BIG, 8);
}

static inline void
end(void)
{
	close_rig();
	verbs_reset();			/* fails if anything is left */
}

static inline void
turns(unsigned n)
{
	while (n-- > 0)
		rig_step(&rig, false);
}

/* A call that has ended: its code. */
static inline int
one(int (*start_it)(struct ask *a))
{
	struct ask a = { .rc = 0 };
	unsigned before = done;

	ck_assert_int_eq(start_it(&a), 0);
	rig_until(&rig, &done, before + 1);
	return a.rc;
}

/* Everything goes, whatever it goes over. */
static inline void
check_all_goes(void)
{
	check_alive();
	ck_assert_int_eq(one(some_write), 0);
	memset(dst, 0, SOME);
	ck_assert_int_eq(one(some_read), 0);
	ck_assert_int_eq(memcmp(dst, shelf, SOME), 0);
}

#endif
