/* SPDX-License-Identifier: MIT */
/* credit.h - how many messages may be sent to a peer that has promised so many receives.
 * Pure; checked by tests/model/credit.pml.
 *
 *	    ours                                     the peer's
 *	may   how many more it has room for       owed  receives free again, not told yet
 *
 * Every message carries what is owed, so most are told for nothing.  A side that owes half
 * of its promise and has nothing to say tells so in a message of its own, for which it keeps
 * its last credit: were that spent on anything else, both sides could wait for a credit
 * that neither can send. */
#ifndef NET_CREDIT_H
#define NET_CREDIT_H

#include <stdbool.h>
#include <stdint.h>

struct net_credit {
	uint32_t may;		/* messages we may send */
	uint32_t peer;		/* receives the peer has promised in all */
	uint32_t owed;		/* of ours, used and free again */
	uint32_t used;		/* of ours, used and not told to be free again */
	uint32_t ours;		/* receives we have promised in all */
};

#define NET_CREDITS_MIN	4u

/* What one more peer is promised when @promised of @size receives are already: @wish while
 * there are plenty, then less, so that thousands of peers get a few each.  That there are
 * so many left is the caller's to see. */
static inline uint32_t
net_credit_share(uint32_t size, uint32_t promised, uint32_t wish)
{
	uint64_t eighths = (uint64_t)promised * 8 / size;
	uint32_t most = eighths < 2 ? wish : eighths < 3 ? 16 : eighths < 5 ? 8 :
	    NET_CREDITS_MIN;

	return wish < most ? wish : most;
}

/* @ours, @peer: at least NET_CREDITS_MIN. */
static inline void
net_credit_init(struct net_credit *c, uint32_t ours, uint32_t peer)
{
	*c = (struct net_credit){ .may = peer, .peer = peer, .ours = ours };
}

/* May a message that says something be sent? */
static inline bool
net_credit_may_send(const struct net_credit *c)
{
	return c->may > 1;
}

/* Is it time for a message that only returns credits? */
static inline bool
net_credit_should_tell(const struct net_credit *c)
{
	return c->may > 0 && c->owed >= c->ours / 2;
}

/* One goes out: what it must carry. */
static inline uint16_t
net_credit_send(struct net_credit *c)
{
	uint16_t told = c->owed < UINT16_MAX ? (uint16_t)c->owed : UINT16_MAX;

	c->may--;
	c->owed -= told;
	c->used -= told;
	return told;
}

/* One came that carries @told. False: more than was ever used. */
static inline bool
net_credit_took(struct net_credit *c, uint16_t told)
{
	if (told > c->peer - c->may)
		return false;
	c->may += told;
	return true;
}

/* One came. False: the peer had no credit for it. */
static inline bool
net_credit_came(struct net_credit *c)
{
	if (c->used >= c->ours)
		return false;
	c->used++;
	return true;
}

/* The receive of one that came is posted again. */
static inline void
net_credit_freed(struct net_credit *c)
{
	c->owed++;
}

#endif
