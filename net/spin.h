/* SPDX-License-Identifier: MIT */
/* spin.h - for how long to look again and again for what comes, before sleeping until the
 * device says so.  Pure.
 *
 * Waking up costs more than a message takes on the wire; looking costs a processor.  So look
 * for at most max_ns, and of all time spend at most one part in NET_SPIN_SHARE on looking that
 * found nothing: a loop that is busy goes on looking, for it always finds something soon; one
 * that is idle, or slowly fed, sleeps nearly all the time.
 *
 * How long it slept says nothing of how long looking would have taken: two ends that sleep
 * wait for each other's waking up too.  Hence it is tried, and the time that failed is what
 * is bounded. */
#ifndef NET_SPIN_H
#define NET_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#define NET_SPIN_SHARE	16u

struct net_spin {
	uint64_t max_ns;		/* 0: always sleep at once */
	uint64_t spare_ns;		/* may be spent in vain; at most max_ns */
	uint64_t earned_ns;		/* spare_ns was earned up to this time */
	uint64_t since_ns;		/* nothing came since then; 0: not waiting */
	bool	 looking;
};

/* Something came. */
static inline void
net_spin_came(struct net_spin *s)
{
	s->since_ns = 0;
	s->looking = false;
}

/* Nothing is there.  True: look again; false: sleep. */
static inline bool
net_spin_on(struct net_spin *s, uint64_t now_ns)
{
	if (s->since_ns == 0) {
		s->spare_ns += (now_ns - s->earned_ns) / NET_SPIN_SHARE;
		if (s->spare_ns > s->max_ns)
			s->spare_ns = s->max_ns;
		s->earned_ns = s->since_ns = now_ns;
		s->looking = s->max_ns > 0 && s->spare_ns == s->max_ns;
	}
	if (s->looking && now_ns - s->since_ns >= s->max_ns) {
		s->looking = false;
		s->spare_ns = 0;	/* in vain */
		s->earned_ns = now_ns;
	}
	return s->looking;
}

#endif
