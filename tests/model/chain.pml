/* SPDX-License-Identifier: MIT */
/* chain.pml - chain replication of one chunk while replicas die, come back and are copied.
 *
 * Three replicas in a chain, two writers, a manager that changes the chain, a reader.
 *
 * A chunk's bytes are the sequence of the writes in it, two bits each, and its version is
 * their number: so an execution that loses, repeats or reorders a write shows in the value.
 * Stores take time, and end in any order with everything else.  Messages are lost, and
 * attempts that were given up arrive late.  A crash keeps what is durable (committed,
 * pending) and may bring back a committed version as pending, for flips are not synced by
 * themselves.  Routing is learnt late, by each replica at its own time.
 *
 * What always holds (assert):
 *   1  what a reader gets is what was read or acknowledged before, or that and more writes
 *   2  no write is in a chunk twice
 *   3  no two values under one version at serving replicas
 *   4  a quiet chain serves, all replicas up, holds one value, has nothing pending, and
 *      both writes have been acknowledged (checked where nothing can happen any more)
 *
 * A guard is what keeps one of these true; run.sh takes each away and looks for red.
 * Bounds: FAILS crashes or lapsed leases, POWER cuts of everything (before any other
 * failure), GIVEUPS attempts without an answer, LATE of which may still arrive, ROTATE
 * changes of order.  Covered, all states, with 3 replicas (Spin 6.5.2, -DHC4, one core):
 *
 *	writers	fails	power	give up	rotate	states	    depth    MiB	 s
 *	1	2	0	1	0	30 961 405   176    1319	60
 *	2	1	0	1	0	 4 905 353   153     325	 6
 *	1	1	1	0	0	 5 248 310   201     339	 6
 *	2	0	1	0	0	   887 138   183     172	 1
 *	1	1	0	0	1	 1 546 296   169     197	 3
 *
 * Not in it: stores that fail, epochs and removals, several chunks, a power cut after another
 * failure.  That one breaks 1 for readers: a version shown by the tail before those above it
 * have stored it is lost when the tail dies for long and then, before their stores have ended,
 * all others do.  It was not acknowledged to its writer. */
#ifndef FAILS
#define FAILS	1
#endif
#ifndef POWER
#define POWER	0
#endif
#ifndef GIVEUPS
#define GIVEUPS	1
#endif
#ifndef LATE
#define LATE	1
#endif
#ifndef ROTATE
#define ROTATE	0
#endif
#ifndef WRITERS
#define WRITERS	2
#endif

#define N	3
#define NONE	3

/* States of a target, in the order of a chain. */
#define SERVING	0
#define LASTSRV	1
#define SYNCING	2
#define WAITING	3
#define OFFLINE	4

/* Values: version, what it was made from, is one the beginning of the other. */
#define LEN(x)	(((x) != 0) + ((x) > 3) + ((x) > 15))
#define BASE(x)	((x) >> 2)
#define LAST(x)	((x) & 3)
#define HAS(x, w)	(((x) & 3) == (w) || (((x) >> 2) & 3) == (w) || \
			    (((x) >> 4) & 3) == (w))
#define BEGINS(a, b)	(LEN(a) <= LEN(b) && ((b) >> (2 * (LEN(b) - LEN(a)))) == (a))

/* ---- the manager ---- */
byte version = 1;
byte ord[N];			/* the chain, head first */
byte st[N];			/* of a target */
bool mup[N];			/* the manager takes the node for alive */
byte synced;			/* "synced" of that chain version is on its way */
byte leaving = NONE;		/* told to go, for the sake of order */
byte leave_ver;			/* in that chain version */
bool left;			/* and has said that it has */

/* ---- a replica: on disk ---- */
byte com[N], pen[N];		/* values; pending 0: none */
bool soft[N];			/* com may come back as pending after a crash */

/* ---- a replica: the process ---- */
bool up[N];
bool boot[N];			/* a new process, not registered yet */
bool lapsed[N];			/* its lease has run out */
byte view[N];			/* chain version it has heard of */
bool settled[N];		/* takes operations and reads */
byte pos[N];			/* in the view: its state there */
byte next[N];			/* successor that takes writes, or NONE */
byte rtail[N];			/* the last that serves */
bool head[N], whole[N];		/* successor is SYNCING */
bool gone[N];			/* has left, as it was told */

/* The operation that has the chunk's turn. */
#define IDLE	0
#define WRITE	1		/* a client's */
#define UPDATE	2		/* the predecessor's */
#define SETTLE	3		/* an older version first */
#define COPY	4		/* of our committed version to the one that syncs */
#define STALE	5		/* of an older chain version: only its store still runs */
byte op[N];
byte val[N];			/* what is made pending */
byte from[N];			/* UPDATE: its attempt */
bool store[N];			/* runs */
byte fwd[N];			/* 0: to be sent, else attempt */
bool done[N];			/* the successor has committed */
bool unsure[N];			/* older attempts may be on their way */

byte attempt[N];		/* last one sent to the successor */
byte below[N];			/* attempts of the predecessor below are void */

/* Resync, at the reading tail: 0 not begun, 1 has the other's list, 2 said so. */
byte sync[N];
byte listed;
bool listed_pen;

/* ---- messages ---- */
byte mver[N], mval[N], matt[N], mvoid[N];	/* to a replica; mver 0: none */
bool mforce[N];
byte lver, lval, latt, lto = NONE;		/* one that is late */
bool lforce;

byte acked;			/* bit per writer */
byte seen;			/* what readers and writers know of */
byte fails = FAILS, power = POWER, giveups = GIVEUPS, late = LATE, rotate = ROTATE;

hidden byte i, j, k, t, n, any;

#define LEASED(r)	(up[r] && !boot[r] && !lapsed[r])
#define ACTIVE(r)	(pos[r] == SERVING || pos[r] == SYNCING)
#define TAKES(r)	(LEASED(r) && settled[r] && ACTIVE(r) && !gone[r])
#define SERVES(r)	(TAKES(r) && pos[r] == SERVING)
#ifdef NO_SELF_FENCING
#define ALIVE(r)	(up[r] && !boot[r])
#else
#define ALIVE(r)	LEASED(r)
#endif

/* A version that is newer than ours may be committed at the reading tail. */
#define DIRTY(r)	(op[r] != IDLE || pen[r] != 0)
/* The reading tail says what is committed.  Not while it may have been succeeded: the one
 * behind it is complete, and may have and show what is not committed here. */
#ifdef NO_SYNCED_HOLD
#define TELLS(r)	(SERVES(r) && rtail[r] == r)
#else
#define TELLS(r)	(SERVES(r) && rtail[r] == r && (sync[r] < 2 || !DIRTY(r)))
#endif

#ifdef NO_SETTLE_FIRST
#define OLDER(r)	false
#else
#define OLDER(r)	(pen[r] != 0)
#endif
#ifdef NO_STALE_WAIT
#define ENDED(r)	true
#else
#define ENDED(r)	(op[r] != STALE)
#endif
#ifdef NO_WRITE_SYNCING
#define TAKES_WRITES(t)	(st[t] == SERVING)
#else
#define TAKES_WRITES(t)	(st[t] == SERVING || st[t] == SYNCING)
#endif

/* What everybody has to see from now on. */
inline know(x) {
	assert(BEGINS(seen, x));
	seen = x
}

inline forget(r) {
	op[r] = IDLE; val[r] = 0; from[r] = 0; store[r] = false; fwd[r] = 0;
	done[r] = false; unsure[r] = false; attempt[r] = 0; below[r] = 0; sync[r] = 0;
	settled[r] = false
}

/* An operation gives the turn back. */
inline finish(r) {
	op[r] = IDLE; val[r] = 0; from[r] = 0; store[r] = false; fwd[r] = 0;
	done[r] = false; unsure[r] = false
}

inline commit(r) {
	assert(pen[r] != 0);
	com[r] = pen[r]; pen[r] = 0; soft[r] = true;
	assert(!(LEN(com[r]) > 1 && HAS(BASE(com[r]), LAST(com[r]))))	/* 2 */
}

/* Tell the sender of attempt @at in our version that it is done. */
inline answer(r, at) {
	j = 0;
	do
	:: j == N -> break
	:: else ->
		if
		:: up[j] && next[j] == r && view[j] == view[r] && fwd[j] == at &&
		   at != 0 && op[j] != IDLE && op[j] != STALE -> done[j] = true
		:: else
		fi;
		j++
	od
}

inline clear_message(r) {
	mver[r] = 0; mval[r] = 0; matt[r] = 0; mvoid[r] = 0; mforce[r] = false
}

/* The message to @r is not taken: it is lost, or late. */
inline void_message(r) {
	if
	:: late > 0 && lto == NONE && mver[r] != 0 -> late--; lto = r; lver = mver[r];
		lval = mval[r]; latt = matt[r]; lforce = mforce[r]
	:: true
	fi;
	clear_message(r)
}

inline drop_late() {
	lto = NONE; lver = 0; lval = 0; latt = 0; lforce = false
}

/* One message, now or late: in version @v, value @x, attempt @at, void below @vd. */
inline take(r, v, x, at, vd, force) {
#ifndef NO_FENCE
	if
	:: vd > below[r] -> below[r] = vd
	:: else
	fi;
#endif
	if
	:: at < below[r]		/* given up long ago */
	:: else ->
		if
		:: force ->
			if
			:: com[r] == x -> pen[r] = 0; answer(r, at)
			:: com[r] != x && LEN(com[r]) >= LEN(x) && x == 0 ->
				com[r] = 0; pen[r] = 0; soft[r] = false; answer(r, at)
			:: com[r] != x && LEN(com[r]) >= LEN(x) && x != 0 ->
				com[r] = 0; pen[r] = 0; soft[r] = false;
				op[r] = UPDATE; val[r] = x; from[r] = at; store[r] = true
			:: LEN(com[r]) < LEN(x) ->
				op[r] = UPDATE; val[r] = x; from[r] = at; store[r] = true
			fi
		:: else ->
			if
			:: pen[r] != 0 && pen[r] == BASE(x) -> commit(r)
			:: else
			fi;
			if
			:: LEN(x) <= LEN(com[r]) ->
				assert(pos[r] != SERVING || BEGINS(x, com[r]));	/* 3 */
				answer(r, at)
			:: LEN(x) > LEN(com[r]) && BASE(x) == com[r] &&
			   (pen[r] == 0 || LEN(pen[r]) == LEN(x)) ->
				assert(pen[r] == 0 || pen[r] == x || pos[r] != SERVING);
				op[r] = UPDATE; val[r] = x; from[r] = at; store[r] = true;
				unsure[r] = pen[r] != 0
			:: else			/* a gap: it tries again */
			fi
		fi
	fi
}

/* An older version may be behind us: it goes first.  @r has the turn. */
inline first_older(r) {
	op[r] = SETTLE; val[r] = pen[r]; unsure[r] = true; store[r] = false
}

proctype Replica(byte r) {
	byte w;
end:	do
	/* -- routing -- */
	:: atomic { up[r] && !boot[r] && mup[r] && view[r] != version ->
		d_step {
			view[r] = version; pos[r] = st[r];
			settled[r] = false; attempt[r] = 0; below[r] = 0; sync[r] = 0;
			gone[r] = gone[r] && leaving == r && leave_ver == version;
			if	/* what runs ends; a store that runs cannot be stopped */
			:: op[r] == STALE
			:: op[r] != IDLE && op[r] != STALE && store[r] ->
				t = val[r]; finish(r);
				op[r] = STALE; val[r] = t; store[r] = true
			:: else -> finish(r)
			fi;
			if
			:: mver[r] != 0 && mver[r] < version -> clear_message(r)
			:: else
			fi;
			if
			:: lto == r -> drop_late()
			:: else
			fi;
			next[r] = NONE; rtail[r] = r; head[r] = false; whole[r] = false;
			i = 0;
			do
			:: i == N -> break
			:: else ->
				t = ord[i];
				if
				:: st[t] == SERVING -> rtail[r] = t
				:: else
				fi;
				if
				:: t == r && i == 0 && st[r] == SERVING -> head[r] = true
				:: else
				fi;
				if
				:: i > 0 && ord[i - 1] == r && st[r] == SERVING &&
				   TAKES_WRITES(t) -> next[r] = t; whole[r] = st[t] == SYNCING
				:: else
				fi;
				i++
			od;
			t = 0
		}
	   }
	/* -- ready for the new version -- */
	:: atomic { up[r] && !settled[r] && view[r] != 0 && view[r] == version && ACTIVE(r) &&
	    ENDED(r) ->
		d_step {
			settled[r] = true;
#ifndef NO_COMMIT_PENDING
			if
			:: rtail[r] == r && pen[r] != 0 -> commit(r)
			:: else
			fi;
#endif
		}
	   }
	/* -- a client writes, or asks again -- */
	:: atomic { SERVES(r) && head[r] && op[r] == IDLE &&
	    acked != (1 << WRITERS) - 1 ->
		if
		:: (acked & 1) == 0 -> w = 1
#if WRITERS > 1
		:: (acked & 2) == 0 -> w = 2
#endif
		fi;
		d_step {
			if
			:: OLDER(r) -> first_older(r)
#ifndef NO_DEDUPE
			:: !OLDER(r) && HAS(com[r], w) ->
				acked = acked | w;
				if
				:: LEN(com[r]) > LEN(seen) -> know(com[r])
				:: else -> assert(BEGINS(com[r], seen))
				fi
#endif
			:: else ->
				op[r] = WRITE; val[r] = (com[r] << 2) | w; store[r] = true;
				unsure[r] = false
			fi;
			w = 0
		}
	   }
	/* -- the head does not leave a version in doubt -- */
	:: atomic { SERVES(r) && head[r] && op[r] == IDLE && pen[r] != 0 ->
		d_step { first_older(r) }
	   }
	/* -- the store ends -- */
	:: atomic { up[r] && op[r] != IDLE && store[r] ->
		d_step {
			store[r] = false; pen[r] = val[r]; soft[r] = false;
			if
			:: op[r] == STALE -> finish(r)
			:: else
			fi
		}
	   }
	/* -- forward: at once, to one that syncs only what is stored -- */
	:: atomic { TAKES(r) && op[r] != IDLE && op[r] != STALE && next[r] != NONE &&
	    fwd[r] == 0 && !done[r] && mver[next[r]] == 0 && (!whole[r] || !store[r]) ->
		d_step {
			t = next[r]; attempt[r]++; fwd[r] = attempt[r];
			mver[t] = view[r]; matt[t] = fwd[r];
			mval[t] = val[r];
			mforce[t] = whole[r];
			mvoid[t] = (unsure[r] -> fwd[r] : 0);
			t = 0
		}
	   }
	/* -- no answer: once more, or no more -- */
	:: atomic { TAKES(r) && op[r] != IDLE && op[r] != STALE && fwd[r] != 0 && !done[r] &&
	    giveups > 0 ->
		giveups--;
		if
		:: mver[next[r]] == view[r] && matt[next[r]] == fwd[r] ->
			void_message(next[r])
		:: else
		fi;
		fwd[r] = 0; unsure[r] = true;
#ifdef NO_SYNC_FENCE
		if
		:: true				/* try again */
		:: !store[r] ->			/* leave it pending */
			if
			:: op[r] == COPY -> sync[r] = 0
			:: else
			fi;
			finish(r)
		fi
#else
		if
		:: true
		:: !store[r] && op[r] != COPY -> finish(r)
		fi
#endif
	   }
	/* a message that the other did not take is sent again */
	:: atomic { TAKES(r) && op[r] != IDLE && op[r] != STALE && fwd[r] != 0 && !done[r] &&
	    view[next[r]] == view[r] && TAKES(next[r]) && op[next[r]] == IDLE &&
	    mver[next[r]] == 0 ->
		d_step { fwd[r] = 0; unsure[r] = true; attempt[r]-- }
	   }
	/* -- stored here, committed behind us -- */
	:: atomic { up[r] && op[r] != IDLE && op[r] != STALE && !store[r] &&
#ifndef NO_TAIL_FIRST
	    (next[r] == NONE || done[r]) ->
#else
	    (next[r] == NONE || done[r] || fwd[r] != 0) ->
#endif
		d_step {
			if
			:: op[r] == COPY -> sync[r] = 2
			:: else ->
				if
				:: pen[r] == val[r] -> commit(r)
				:: else
				fi
			fi;
			if
			:: op[r] == UPDATE -> answer(r, from[r])
			:: op[r] == WRITE && LEASED(r) ->
				acked = acked | LAST(val[r]);
				if
				:: LEN(com[r]) > LEN(seen) -> know(com[r])
				:: else -> assert(BEGINS(com[r], seen))
				fi
			:: else
			fi;
			finish(r)
		}
	   }
	/* -- an update comes -- */
	:: atomic { TAKES(r) && op[r] == IDLE && mver[r] != 0 &&
#ifndef NO_CHAIN_VERSION
	    mver[r] == view[r] &&
#endif
	    !head[r] ->
		d_step {
			take(r, mver[r], mval[r], matt[r], mvoid[r], mforce[r]);
			clear_message(r)
		}
	   }
	/* of an older chain version: refused */
	:: atomic { up[r] && mver[r] != 0 && mver[r] < view[r] -> d_step { clear_message(r) } }
	/* a late one */
	:: atomic { TAKES(r) && op[r] == IDLE && lto == r && lver == view[r] && !head[r] ->
		d_step { take(r, lver, lval, latt, 0, lforce); drop_late() }
	   }
	/* -- a read at any replica that serves: a clean chunk, or as the reading tail says -- */
	:: atomic { SERVES(r) && !DIRTY(r) && com[r] != seen -> d_step { know(com[r]) } }
#ifdef NO_ASK_TAIL
	:: atomic { SERVES(r) && DIRTY(r) && com[r] != seen -> d_step { know(com[r]) } }
#else
	:: atomic { SERVES(r) && DIRTY(r) && TELLS(rtail[r]) && view[rtail[r]] == view[r] &&
	    com[rtail[r]] != seen && (LEN(com[rtail[r]]) == LEN(com[r]) ||
	    LEN(com[rtail[r]]) == LEN(pen[r])) ->
		d_step {
			assert(com[rtail[r]] == com[r] || com[rtail[r]] == pen[r]); /* 3 */
			know(com[rtail[r]])
		}
	   }
#endif
	/* -- copying to the one that syncs: its list, ours, the copy, the word -- */
	:: atomic { SERVES(r) && rtail[r] == r && next[r] != NONE && whole[r] &&
	    sync[r] == 0 && view[next[r]] == view[r] && TAKES(next[r]) ->
		d_step { sync[r] = 1; listed = com[next[r]]; listed_pen = pen[next[r]] != 0 }
	   }
#ifdef NO_TURN
	:: atomic { SERVES(r) && sync[r] == 1 && next[r] != NONE && mver[next[r]] == 0 ->
		d_step {
			attempt[r]++; t = next[r]; mver[t] = view[r]; mval[t] = com[r];
			matt[t] = attempt[r]; mforce[t] = true; sync[r] = 2; t = 0;
			listed = 0; listed_pen = false
		}
	   }
#endif
	:: atomic { SERVES(r) && sync[r] == 1 && op[r] == IDLE ->
		d_step {
			if
#ifdef NO_RESYNC
			:: true -> sync[r] = 2
#else
			:: com[r] == listed && !listed_pen -> sync[r] = 2
			:: else -> op[r] = COPY; val[r] = com[r]; unsure[r] = true
#endif
			fi;
			listed = 0; listed_pen = false
		}
	   }
	:: atomic { SERVES(r) && sync[r] == 2 && synced == 0 -> sync[r] = 3; synced = view[r] }
	/* -- told to leave, says that it has -- */
	:: atomic { LEASED(r) && leaving == r && !left && view[r] <= leave_ver -> gone[r] = true; left = true }
	od
}

/* ---- the chain state machine ---- */

#define VALID(r)	(mup[r])

/* @dead: those that die in this evaluation count as not alive by mup[] already. */
inline evaluate() {
	any = false; n = 0; k = NONE;
	i = 0;
	do	/* 1: does one of them stay? */
	:: i == N -> break
	:: else ->
		if
		:: st[ord[i]] == SERVING && VALID(ord[i]) -> n++
		:: st[ord[i]] == SERVING && !VALID(ord[i]) ->
#ifdef NO_TAILMOST
			if
			:: k == NONE -> k = ord[i]
			:: else
			fi
#else
			k = ord[i]
#endif
		:: else
		fi;
		i++
	od;
	i = 0;
	do
	:: i == N -> break
	:: else ->
		t = ord[i];
		if
		:: st[t] == SERVING && !VALID(t) ->
			st[t] = (n == 0 && t == k -> LASTSRV : OFFLINE); any = true
		:: else
		fi;
		i++
	od;
	i = 0;
	do	/* 2, 3 */
	:: i == N -> break
	:: else ->
		if
		:: st[i] == LASTSRV && VALID(i) -> st[i] = SERVING; n = 1; any = true
		:: else
		fi;
		i++
	od;
	i = 0;
	do
	:: i == N -> break
	:: else ->
		if
		:: st[i] == SYNCING && !VALID(i) -> st[i] = OFFLINE; any = true
		:: st[i] == SYNCING && VALID(i) && n == 0 -> st[i] = WAITING; any = true
		:: else
		fi;
		i++
	od;
	k = 0;
	i = 0;
	do	/* 4 */
	:: i == N -> break
	:: else ->
		k = k + (st[i] == SYNCING); i++
	od;
	i = 0;
	do
	:: i == N -> break
	:: else ->
		t = ord[i];
		if
		:: (st[t] == WAITING || st[t] == OFFLINE) && VALID(t) && n > 0 && k == 0 ->
			st[t] = SYNCING; k = 1; any = true
		:: st[t] == OFFLINE && VALID(t) && !(n > 0 && k == 0) ->
			st[t] = WAITING; any = true
		:: st[t] == WAITING && !VALID(t) -> st[t] = OFFLINE; any = true
		:: else
		fi;
		i++
	od;
	i = 0;
	do	/* 5: by state, stable */
	:: i == 2 -> break
	:: else ->
		j = 0;
		do
		:: j == 2 -> break
		:: else ->
			if
			:: st[ord[j]] > st[ord[j + 1]] ->
				t = ord[j]; ord[j] = ord[j + 1]; ord[j + 1] = t
			:: else
			fi;
			j++
		od;
		i++
	od;
	if
	:: any -> version++
	:: else
	fi;
	any = false; n = 0; k = 0; t = 0; i = 0; j = 0
}

/* The process has ended: what it had in memory is gone. */
inline crash(r) {
	up[r] = false; boot[r] = false; lapsed[r] = false;
	forget(r); clear_message(r);
	if
	:: lto == r -> drop_late()
	:: else
	fi;
	view[r] = 0; pos[r] = OFFLINE; next[r] = NONE; rtail[r] = r; head[r] = false;
	whole[r] = false; gone[r] = false
}

/* A flip may be lost: then the version is pending again. */
inline tear(r) {
	if
	:: soft[r] && com[r] != 0 && pen[r] == 0 -> pen[r] = com[r]; com[r] = BASE(com[r])
	:: true
	fi;
	soft[r] = false
}

/* Lost before it told the manager: dead, as that sees it. */
#define DYING(r)	(mup[r] && !ALIVE(r))

proctype Manager() {
	byte r;
end:	do
	/* -- the lease of some has ended: all that are silent die in one command -- */
	:: atomic { DYING(0) || DYING(1) || DYING(2) ->
#ifdef NO_BATCH
		if
		:: DYING(0) -> mup[0] = false
		:: DYING(1) -> mup[1] = false
		:: DYING(2) -> mup[2] = false
		fi;
#else
		d_step {
			mup[0] = mup[0] && ALIVE(0);
			mup[1] = mup[1] && ALIVE(1);
			mup[2] = mup[2] && ALIVE(2);
		}
#endif
		d_step { evaluate() }
	   }
#ifdef NO_SELF_FENCING
	/* a node that is silent for others' fault is given up while it serves */
	:: atomic { fails > 0 && (mup[0] && up[0] || mup[1] && up[1] || mup[2] && up[2]) ->
		if
		:: mup[0] && up[0] -> r = 0
		:: mup[1] && up[1] -> r = 1
		:: mup[2] && up[2] -> r = 2
		fi;
		fails--; power = 0; mup[r] = false; lapsed[r] = false;
		d_step { r = 0; evaluate() }
	   }
#endif
	/* -- registers anew, or is heard again -- */
	:: atomic {
		if
		:: up[0] && !mup[0] -> r = 0
		:: up[1] && !mup[1] -> r = 1
		:: up[2] && !mup[2] -> r = 2
		fi;
		d_step {
			mup[r] = true; boot[r] = false; lapsed[r] = false;
#ifndef NO_FRESH_VIEW
			settled[r] = false; pos[r] = OFFLINE;
#endif
			r = 0;
			evaluate()
		}
	   }
#ifdef NO_DEAD_FIRST
	:: atomic {
		if
		:: up[0] && boot[0] && mup[0] -> r = 0
		:: up[1] && boot[1] && mup[1] -> r = 1
		:: up[2] && boot[2] && mup[2] -> r = 2
		fi;
		boot[r] = false; r = 0
	   }
#endif
	/* -- the copy is complete -- */
	:: atomic { synced != 0 ->
		d_step {
#ifdef NO_SYNCED_VERSION
			if
			:: true ->
#else
			if
			:: synced == version ->
#endif
				i = 0;
				do
				:: i == N -> break
				:: else ->
					if
					:: st[i] == SYNCING && mup[i] -> st[i] = SERVING;
						version++
					:: else
					fi;
					i++
				od;
				/* the next one may sync */
				evaluate()
			:: else
			fi;
			synced = 0; i = 0
		}
	   }
	/* -- the order of a whole chain: the first goes to the end -- */
	:: atomic { rotate > 0 && leaving == NONE && st[0] == SERVING && st[1] == SERVING &&
	    st[2] == SERVING ->
		rotate--; leave_ver = version;
		if
		:: leaving = ord[0]
		:: leaving = ord[2]
		fi;
#ifdef NO_LEAVE_FIRST
		left = true
#endif
	   }
	:: atomic { leaving != NONE && left && version == leave_ver ->
		d_step {
			/* OFFLINE and, being alive, SYNCING at once: at the end */
			st[leaving] = SYNCING; version++;
			leaving = NONE; left = false; leave_ver = 0;
			i = 0;
			evaluate()
		}
	   }
	/* somebody died: later */
	:: atomic { leaving != NONE && version != leave_ver ->
		d_step { leaving = NONE; left = false; leave_ver = 0 }
	   }
	od
}

#define HELD(r)	(LEASED(r) && mup[r])

proctype Trouble() {
	byte r;
end:	do
	/* a process ends */
	:: atomic { fails > 0 && (up[0] || up[1] || up[2]) ->
		if
		:: up[0] -> r = 0
		:: up[1] -> r = 1
		:: up[2] -> r = 2
		fi;
		fails--; power = 0; crash(r); tear(r); r = 0
	   }
	/* a node hears no manager for a lease */
	:: atomic { fails > 0 && (HELD(0) || HELD(1) || HELD(2)) ->
		if
		:: HELD(0) -> r = 0
		:: HELD(1) -> r = 1
		:: HELD(2) -> r = 2
		fi;
		fails--; power = 0; lapsed[r] = true; r = 0
	   }
	/* all of them at once */
	:: atomic { power > 0 -> power = 0;
		crash(0); tear(0); crash(1); tear(1); crash(2); tear(2)
	   }
	/* and they start again, as new processes: before or after they are missed */
	:: atomic { !up[0] -> up[0] = true; boot[0] = true }
	:: atomic { !up[1] -> up[1] = true; boot[1] = true }
	:: atomic { !up[2] -> up[2] = true; boot[2] = true }
	od
}

/* Nothing can happen any more. */
#define QUIET(r)	(st[r] == SERVING && view[r] == version && settled[r] && \
			    op[r] == IDLE && pen[r] == 0 && com[r] == seen)

init {
	atomic {
		i = 0;
		do
		:: i == N -> break
		:: else ->
			ord[i] = i; mup[i] = true; up[i] = true; pos[i] = OFFLINE;
			next[i] = NONE; rtail[i] = i; i++
		od;
		i = 0;
		run Replica(0); run Replica(1); run Replica(2);
		run Manager(); run Trouble()
	}
	timeout ->
	assert(acked == (1 << WRITERS) - 1 && QUIET(0) && QUIET(1) && QUIET(2))	/* 4 */
}
