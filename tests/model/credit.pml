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
 * With REVOKES one of them, the caller, also makes a request that lends memory to the other,
 * which may READ there, WRITE there (READS, WRITES times) and answers some time; before that
 * the caller may want it back.  A READ is on its way until it has been executed; WRITEs stay
 * in order with messages.  A request may be held, but what revokes it overtakes it.  Instead
 * of waiting for an answer to that the caller may break the queue pair.
 *	AWAIT	memory that is revoked is used again when the other end has let go of it
 *	STOP	what is revoked is not touched anew
 *	READS	letting go waits for READs that are on their way
 *	SILENT	what was let go of is not answered
 *	EARLY	what is revoked while its request is held is not touched when that goes on
 *	QPEND	breaking a queue pair ends what is on its way, and then memory is used again
 *
 * What always holds (assert): a message that arrives finds a receive; no buffer is written to
 * while its message is on its way; nobody holds more than was promised; what one has sent
 * before it closed arrives; nobody touches memory that is used again, and what is answered
 * was asked.  And no end of the game (invalid end state) but that everything
 * has been said, heard, and closed.  A guard NO_<name> is one of the sentences above.
 *
 * In the code: WAIT, LAST net_credit_may_send(); TELL net_credit_should_tell(); TOLD
 * net_credit_send(); FREED freed() in net/rdma_in.c; DONE net_rdma_completed(); LINGER linger_on();
 * AWAIT net_rdma_answered(), net_call_abandon(); STOP net_rdma_read(); READS
 * net_rdma_offer_check(); SILENT net_rdma_send(), drop_unwanted(); EARLY look_early(); QPEND
 * net_rdma_stop(), when a channel is closed.  Taking any of these away there too is noticed, by
 * tests/test_credit.c, test_rdma.c and test_call_revoke.c over the devices of tests/verbs.
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
#ifndef READS
#define READS	1
#endif
#ifndef WRITES
#define WRITES	2
#endif
#define WIRE	8

/* kinds of messages; a WRITE is none, it takes no receive */
#define ONLY	0		/* returns credits */
#define SAY	1
#define ASK	2
#define ANSWER	3
#define REVOKE	4
#define LETGO	5
#define WRITE	6
#define TELL_OF(kind)	(kind == REVOKE || kind == LETGO)

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
#ifdef NO_STOP
#define MAY_TOUCH	(got && !answered)
#else
#define MAY_TOUCH	(got && !answered && !revoked)
#endif
#ifdef NO_READS
#define READS_OVER	true
#else
#define READS_OVER	(!reading)
#endif
#ifdef NO_SILENT
#define MAY_ANSWER	(got && !answered && !reading)
#else
#define MAY_ANSWER	(got && !answered && !reading && !letgo && (!revoked || written > 0))
#endif
#ifdef NO_EARLY
#define TAKE_IT		got = true; revoked = false
#else
#define TAKE_IT		got = true
#endif
#define MAY_LET_GO	(revoked && !answered && !letgo && READS_OVER)
#ifdef REVOKES
#define ASKED(me)	(asked && !lent && (me == 0 || answered || letgo))
#else
#define ASKED(me)	true
#endif
#ifdef NO_LINGER
#define DRAINED(me)	true
#else
#define DRAINED(me)	(len(wire[me]) == 0 || closed[1 - me])
#endif

/* what is sent: its kind, credits it carries */
chan wire[2] = [WIRE] of { byte, byte };

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

/* the request: the caller is 0 */
bool asked, lent, wants;	/* was made; memory is the other's; was revoked */
bool reused;			/* that memory is used for something else */
bool got, revoked, answered, letgo;
bool reading;			/* a READ is on its way */
byte reads, written;
bool waits[2];			/* the request, or the answer, is among what is held */

inline post(me, kind) {
	d_step {
		with = kind != ONLY;
		/* its buffer: none that is still on its way */
		assert(!(with && away[me] >= BUFS));
		assert(nfull(wire[me]));
		wire[me]!kind, owed[me];
		owed[me] = 0;
		if
		:: may[me] > 0 -> may[me]--
		:: else
		fi;
		if
		:: with -> flying[me]++; away[me]++
		:: else
		fi;
		if
		:: kind == SAY -> said[me]++
		:: else
		fi;
		with = 0
	}
}

/* Memory is the caller's again. */
inline given_back() {
	assert(lent);
	lent = false;
	reused = true
}

/* A message is handled: what it means. */
inline meant(me, kind) {
	if
	:: kind == SAY -> heard[me]++
	:: kind == ASK -> TAKE_IT
	:: kind == ANSWER || kind == LETGO -> given_back()
	:: kind == REVOKE -> revoked = true
	:: else
	fi
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
		wire[peer]?kind, told;
		if
		:: kind == WRITE -> assert(!reused)
		:: else ->
			/* receiver not ready */
			assert(posted[me] > 0);
			posted[me]--;
#ifdef NO_FREED
			owed[me]++;
#endif
#ifdef NO_TOLD
			if
			:: kind != ONLY -> told = 0
			:: else
			fi;
#endif
			assert(may[me] + told <= OURS);
			may[me] = may[me] + told;
			if
			:: kind != ONLY -> away[peer]--
			:: else
			fi;
			if
			:: kind != ONLY && !TELL_OF(kind) && (paused[me] || held[me] > 0) ->
				held[me]++;
				assert(held[me] <= OURS);
				if
				:: kind != SAY -> waits[me] = true
				:: else
				fi
			:: else ->
				meant(me, kind);
				handled(me)
			fi
		fi;
		told = 0;
		kind = 0
	}
}

proctype End(bit me) {
	byte kind, told;
	bool with;
	bit peer = 1 - me;

	do
	/* say something */
	:: atomic { !closed[me] && said[me] < SENDS && CREDIT(me) && FREE(me) && nfull(wire[me]) ->
		post(me, SAY)
	   }
	/* only return credits */
	:: atomic { !closed[me] && TELL(me) && nfull(wire[me]) ->
		post(me, ONLY)
	   }
	/* a message arrives */
	:: atomic { !closed[me] && len(wire[peer]) > 0 -> arrive(me, peer) }
	/* one that was held goes on: the request or answer among them, or another */
	:: atomic { !closed[me] && held[me] > 0 && !paused[me] && waits[me] ->
		held[me]--; waits[me] = false;
		if
		:: me == 0 -> given_back()
		:: else -> TAKE_IT
		fi;
		handled(me)
	   }
	:: atomic { !closed[me] && held[me] > waits[me] && !paused[me] ->
		held[me]--; heard[me]++; handled(me)
	   }
	/* those that have arrived have completed; seen when it suits */
	:: atomic { !closed[me] && flying[me] > away[me] -> flying[me] = away[me] }
	/* our output is stuck, so we do not read; for a while */
	:: atomic { !closed[me] && !paused[me] && pauses[me] < PAUSES ->
		paused[me] = true; pauses[me]++
	   }
	:: atomic { !closed[me] && paused[me] -> paused[me] = false }
#ifdef REVOKES
	/* the caller asks; and wants it back */
	:: atomic { me == 0 && !closed[0] && !asked && CREDIT(0) && FREE(0) && nfull(wire[0]) ->
		asked = true; lent = true;
		post(0, ASK)
	   }
	:: atomic { me == 0 && !closed[0] && lent && !wants && CREDIT(0) && FREE(0) && nfull(wire[0]) ->
		wants = true;
#ifdef NO_AWAIT
		reused = true;
#endif
		post(0, REVOKE)
	   }
	/* ... and does not wait for ever */
	:: atomic { me == 0 && !closed[0] && lent && wants ->
#ifndef NO_QPEND
		closed[0] = true; closed[1] = true;
		reading = false;
		do
		:: len(wire[0]) > 0 -> wire[0]?_, _
		:: len(wire[1]) > 0 -> wire[1]?_, _
		:: else -> break
		od;
#endif
		lent = false; reused = true
	   }
	/* the other touches it, answers, lets go */
	:: atomic { me == 1 && !closed[1] && MAY_TOUCH && !reading && reads < READS ->
		reads++; reading = true
	   }
	:: atomic { me == 1 && !closed[1] && reading ->
		assert(!reused);
		reading = false
	   }
	:: atomic { me == 1 && !closed[1] && MAY_TOUCH && written < WRITES && nfull(wire[1]) ->
		written++;
		wire[1]!WRITE, 0
	   }
	:: atomic { me == 1 && !closed[1] && MAY_ANSWER && CREDIT(1) && FREE(1) && nfull(wire[1]) ->
		answered = true;
		post(1, ANSWER)
	   }
	:: atomic { me == 1 && !closed[1] && MAY_LET_GO && CREDIT(1) && FREE(1) && nfull(wire[1]) ->
		letgo = true;
		post(1, LETGO)
	   }
#endif
	/* nothing left to say, all heard: the end, of both */
	:: atomic { !closed[me] && said[me] == SENDS && heard[me] == SENDS && ASKED(me) && DRAINED(me) ->
		closed[me] = true;
		/* what it sent has arrived */
		assert(heard[peer] + held[peer] - waits[peer] == SENDS)
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
