/* SPDX-License-Identifier: MIT */
/* credit.pml - messages between two ends of a queue pair: net/credit.h, and what net/rdma_in.c
 * and net/rdma_out.c do with it.
 *
 * Both ends promise OURS receives, and have SENDS messages each that say something.  One that
 * arrives takes a receive; it is handled at once or held (while paused), and then its receive
 * is posted again and owed.  Every message carries what is owed.  A message's buffer is one of
 * BUFS of the sender, free again when the completion of it has been seen; completions may be
 * seen late and together.  Either end may close at any time after it has nothing left to say.
 *
 *	WAIT	nothing that says something is sent without a credit
 *	LAST	... and the last one is kept for a message that only returns credits
 *	TELL	such a message is sent when half of what was promised is owed
 *	TOLD	every message returns what is owed
 *	FREED	a receive is owed when it is posted again, not when its message has come
 *	DONE	a buffer is used again when its message has completed
 *	LINGER	who closes waits until what it has sent has completed
 *
 * What always holds (assert): a message that arrives finds a receive; no buffer is written to
 * while its message is on its way; nobody holds more than was promised; what one has sent
 * before it closed arrives.  And no end of the game (invalid end state) but that everything
 * has been said, heard, and closed.  A guard NO_<name> is one of the sentences above.
 *
 * Messages that only return credits are themselves bounded by the game: each needs half of a
 * promise that was owed, so they end by themselves.  Covered: all states. */
#ifndef OURS
#define OURS	4
#endif
#ifndef SENDS
#define SENDS	6
#endif
#ifndef PAUSES
#define PAUSES	1
#endif
#ifndef BUFS
#define BUFS	2
#endif
#define WIRE	8

#ifdef NO_LAST
#define MAY_SAY(me)	(may[me] > 0)
#else
#define MAY_SAY(me)	(may[me] > 1)
#endif
#ifdef NO_WAIT
#define CREDIT(me)	true
#else
#define CREDIT(me)	MAY_SAY(me)
#endif
#ifdef NO_TELL
#define TELL(me)	false
#else
#define TELL(me)	(may[me] > 0 && owed[me] >= OURS / 2)
#endif
#ifdef NO_DONE
#define FREE(me)	true
#else
#define FREE(me)	(flying[me] < BUFS)
#endif
#ifdef NO_LINGER
#define DRAINED(me)	true
#else
#define DRAINED(me)	(len(wire[me]) == 0 || closed[1 - me])
#endif

/* what is sent: a message that says something, credits it carries */
chan wire[2] = [WIRE] of { bit, byte };

byte may[2];			/* messages that may be sent */
byte owed[2];			/* of ours, free again and not told */
byte posted[2];			/* receives that are */
byte held[2];			/* messages that wait here */
byte flying[2];			/* messages whose buffers are not known to be free */
byte away[2];			/* ... and those that are on their way indeed */
byte said[2], heard[2];		/* messages that say something */
bool paused[2];
byte pauses[2];
bool closed[2];

inline post(me, with) {
	d_step {
		/* its buffer: none that is still on its way */
		assert(!(with && away[me] >= BUFS));
		assert(nfull(wire[me]));
		wire[me]!with, owed[me];
		owed[me] = 0;
		if
		:: may[me] > 0 -> may[me]--
		:: else
		fi;
		if
		:: with -> flying[me]++; away[me]++; said[me]++
		:: else
		fi
	}
}

inline handled(me) {
	posted[me]++;
	assert(posted[me] <= OURS);
#ifndef NO_FREED
	owed[me]++
#endif
}

inline arrive(me, peer) {
	d_step {
		wire[peer]?says, told;
		/* receiver not ready */
		assert(posted[me] > 0);
		posted[me]--;
#ifdef NO_FREED
		owed[me]++;
#endif
#ifdef NO_TOLD
		if
		:: says -> told = 0
		:: else
		fi;
#endif
		assert(may[me] + told <= OURS);
		may[me] = may[me] + told;
		told = 0;
		if
		:: says -> away[peer]--
		:: else
		fi;
		if
		:: !says -> handled(me)
		:: says && (paused[me] || held[me] > 0) ->
			held[me]++;
			assert(held[me] <= OURS)
		:: says && !paused[me] && held[me] == 0 ->
			heard[me]++;
			handled(me)
		fi;
		says = 0
	}
}

proctype End(bit me) {
	bit says;
	byte told;
	bit peer = 1 - me;

	do
	/* say something */
	:: atomic { !closed[me] && said[me] < SENDS && CREDIT(me) && FREE(me) && nfull(wire[me]) ->
		post(me, 1)
	   }
	/* only return credits */
	:: atomic { !closed[me] && TELL(me) && nfull(wire[me]) ->
		post(me, 0)
	   }
	/* a message arrives */
	:: atomic { !closed[me] && len(wire[peer]) > 0 -> arrive(me, peer) }
	/* one that was held goes on */
	:: atomic { !closed[me] && held[me] > 0 && !paused[me] ->
		held[me]--; heard[me]++; handled(me)
	   }
	/* those that have arrived have completed; seen when it suits */
	:: atomic { !closed[me] && flying[me] > away[me] -> flying[me] = away[me] }
	/* our output is stuck, so we do not read; for a while */
	:: atomic { !closed[me] && !paused[me] && pauses[me] < PAUSES ->
		paused[me] = true; pauses[me]++
	   }
	:: atomic { !closed[me] && paused[me] -> paused[me] = false }
	/* nothing left to say, all heard: the end, of both */
	:: atomic { !closed[me] && said[me] == SENDS && heard[me] == SENDS && DRAINED(me) ->
		closed[me] = true;
		/* what it sent has arrived */
		assert(heard[peer] + held[peer] == SENDS)
	   }
	:: closed[me] -> break
	od
}

init {
	atomic {
		may[0] = OURS; may[1] = OURS; posted[0] = OURS; posted[1] = OURS;
		run End(0); run End(1)
	}
}
