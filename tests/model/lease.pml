/* SPDX-License-Identifier: MIT */
/* lease.pml - a storage node's lease, and the managers that take chains away from it.
 *
 * One node; a manager that leads and another that is elected after it; time in ticks.
 * Everything but a tick may happen at any moment or not at all: beats and answers are slow
 * or lost, commands commit late.  Clocks drift: any timer may be DRIFT ticks late where late
 * is dangerous (the node's lease, the leader's) or early (who waits for these to end).
 *
 *	node	serves while its lease lasts, counted from the sending of the last answered
 *		beat, and only by routing that is not older than that answer
 *	leader	answers beats while it is sure to lead; takes a node out that was silent for
 *		longer than a lease can last; does not answer one that it is taking out
 *	new	leads when nobody who votes has heard the old one for longer than that one is
 *		sure; waits as if it had heard every node just now; serves when what was left
 *		of the old one is committed or gone
 *
 * What always holds (assert): a node that serves has not been taken out since the version of
 * its chains that it serves by.  A guard NO_<name> is one of the sentences above.
 *
 * There is no end of time: all states are finite but the number of times that the node was
 * taken out, which is bounded by DOWNS.  Covered: all 123 576 states. */
#define LEASE	3
#define DRIFT	1
#define GROUP	2			/* the leader's lease of the group */
#define DOWNS	3
#ifdef NO_LONGER_WAIT
#define WAIT	LEASE
#else
#define WAIT	(LEASE + 2 * DRIFT)
#endif
#ifdef NO_VOTE_WAIT
#define VOTE	GROUP
#else
#define VOTE	(GROUP + 2 * DRIFT)
#endif
#ifdef NO_HOLD_DYING
#define DYING	false
#else
#define DYING	proposed
#endif
#ifdef NO_GROUP_LEASE
#define SURE	true
#else
#define SURE	(lead_left > 0)
#endif
#ifdef NO_SELF_FENCE
#define LEASED	true
#else
#define LEASED	(lease > 0)
#endif
#ifdef NO_FRESH_VIEW
#define FRESH	true
#else
#define FRESH	(view >= said)
#endif

/* committed */
byte downs;			/* times that the node was taken out: a version */
bool out;			/* it is, and was not heard since */
bool in = true;			/* it serves in its chains */
bool proposed;			/* to take it out, not committed yet */

/* the node */
byte lease = LEASE, lease_late = DRIFT;
byte view;			/* its routing: downs */
bool view_in = true;		/* ... and that it serves */
byte said;			/* downs, in the newest answer */

/* a beat */
mtype = { NONE, THERE, BACK };
mtype beat = NONE;
byte beat_left, beat_late;	/* of a lease from its sending */
byte beat_said;

/* managers: the first leads, then the second */
bool second;			/* it was elected */
bool ready = true;		/* ... and knows all that was committed */
byte lead_left = GROUP, lead_late = DRIFT;
byte vote_left = VOTE, vote_early = DRIFT;
byte wait = WAIT, wait_early = DRIFT;	/* silence of the node, at who leads */

#define SERVES	(LEASED && FRESH && view_in)

inline late(left, budget) {
	if
	:: left > 0 -> left--
	:: left > 0 && budget > 0 -> budget--
	:: left == 0 -> budget = 0
	fi
}

inline early(left, budget) {
	if
	:: left > 0 -> left--
	:: left > 1 && budget > 0 -> left = left - 2; budget--
	:: left == 0 -> budget = 0
	fi
}

/* The leader has heard the node and answers. */
inline reply() {
	beat = BACK; beat_said = downs
}

active proctype All() {
end:	do
	:: atomic {			/* time */
		late(lease, lease_late);
		late(beat_left, beat_late);
		late(lead_left, lead_late);
		early(vote_left, vote_early);
		early(wait, wait_early);
		assert(!SERVES || view == downs)
	   }
	:: atomic {			/* the node beats; an older beat is forgotten */
		beat = THERE; beat_left = LEASE; beat_late = DRIFT; beat_said = 0
	   }
	:: atomic { beat == THERE && !second && SURE && !DYING ->
		wait = WAIT; wait_early = DRIFT;
		out = false;
		reply()
	   }
	:: atomic { beat == THERE && second && ready && !DYING ->
		wait = WAIT; wait_early = DRIFT;
		out = false;
		reply()
	   }
	:: atomic { beat == BACK ->
#ifdef NO_SENDING_TIME
		lease = LEASE; lease_late = DRIFT;
#else
		if
		:: beat_left > lease -> lease = beat_left; lease_late = beat_late
		:: else
		fi;
#endif
		said = (beat_said > said -> beat_said : said);
		beat = NONE; beat_left = 0; beat_late = 0; beat_said = 0;
		assert(!SERVES || view == downs)
	   }
	:: atomic { view != downs || view_in != in ->	/* routing */
		view = downs; view_in = in
	   }
	/* silent for too long */
	:: atomic { wait == 0 && !proposed && !out && downs < DOWNS && (!second || ready) ->
		proposed = true
	   }
	:: atomic { proposed && (!second || ready) ->
		proposed = false; downs++; out = true; in = false;
		assert(!SERVES || view == downs)
	   }
	/* heard again, copied: it serves */
	:: atomic { !out && !in && view == downs && !proposed -> in = true }
	/* the leader hears a majority */
	:: atomic { !second && lead_left < GROUP ->
		lead_left = GROUP; lead_late = DRIFT; vote_left = VOTE; vote_early = DRIFT
	   }
	/* another is elected */
	:: atomic { !second && vote_left == 0 ->
		second = true;
		ready = !proposed;
#ifdef NO_WAIT_ANEW
		wait = 0; wait_early = 0
#else
		wait = WAIT; wait_early = DRIFT
#endif
	   }
	/* what the old one had proposed is committed after all, or gone */
	:: atomic { second && !ready ->
		if
		:: proposed = false; ready = true
		:: proposed = false; ready = true; downs++; out = true; in = false;
			assert(!SERVES || view == downs)
		fi
	   }
	/* the old one still takes itself for the leader */
	:: atomic { beat == THERE && second && SURE && !DYING -> reply() }
#ifdef NO_BARRIER
	:: atomic { beat == THERE && second && !ready ->
		wait = WAIT; wait_early = DRIFT; reply()
	   }
#endif
	od
}
