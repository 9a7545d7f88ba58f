/* SPDX-License-Identifier: MIT */
/* raft.pml - a replicated log: who leads, what is committed, who is a member.
 *
 * Four processes of which three are members at first; the leader of term 1 has committed one
 * entry and changes the membership by one at a time while others stand for election, up to
 * term TERMS.  A call is one step at both ends; that it is lost is that it is not taken.  A
 * crash keeps term, vote and log.
 *
 * The leader's lease: a member that hears a leader promises not to vote for a while; the
 * leader counts on the promise for a shorter time.  So here: a promise ends when it likes,
 * but not before the leader has stopped counting on it.
 *
 * What always holds (assert):
 *   1  one leader in a term
 *   2  what was committed at an index stays
 *   3  a leader under its lease knows all that was committed (reads need no round)
 * A guard NO_<name> is what keeps one of these true.
 *
 * Covered, all states (Spin 6.5.2, -DHC4, one core; logs of up to 4 entries):
 *	terms	changes	crashes	states	   depth   MiB	 s
 *	3	2	0	9 928 096   236    517	25
 *	2	1	1	  736 908   203    166	 3
 *	5	0	0	  811 093   175    169	 3
 * Not in it: snapshots, learners, pre-vote (it keeps a cut off member from disturbing, not
 * from doing wrong), transfer of leadership. */
#ifndef TERMS
#define TERMS	3
#endif
#ifndef CRASHES
#define CRASHES	1
#endif
#ifndef CHANGES
#define CHANGES	2
#endif
#define N	4
#define L	4			/* entries in a log; 0 is the first */

#define FOLLOWER	0
#define CANDIDATE	1
#define LEADER		2

byte term[N], vote[N];			/* durable; vote: process + 1 */
byte size[N];
byte lterm[16];				/* the log of s: s * L + index */
byte lconf[16];				/* members after the entry, 0: no change */
byte role[N], votes[N], com[N];
byte match[16];				/* leader * N + follower: entries it has */
byte first[N];				/* of a leader: its own first entry */
byte promise[N];			/* leader + 1 */
byte counts[N];				/* of a leader: on whose promises */

byte gterm[L], gcom;			/* what was committed, by anyone */
byte led[TERMS + 1];			/* who led a term, + 1 */
byte crashes = CRASHES, changes = CHANGES;

hidden byte i, m, q, p;

#define BITS(x)		((x & 1) + (x >> 1 & 1) + (x >> 2 & 1) + (x >> 3 & 1))
/* A majority of @conf is in @who. */
#define MAJORITY(who, conf)	(2 * BITS((who & conf)) > BITS((conf)))
/* Members as @s knows them: of its last change, committed or not. */
#define CONF1(s, n)	(size[s] > n && lconf[(s) * L + n] != 0 -> lconf[(s) * L + n]
#define CONF(s)		CONF1(s, 3) : CONF1(s, 2) : CONF1(s, 1) : CONF1(s, 0) : 7))))
#define LASTTERM(s)	(size[s] > 0 -> lterm[(s) * L + size[s] - 1] : 0)
#define NEWER(a, b)	(LASTTERM(a) > LASTTERM(b) || \
			    (LASTTERM(a) == LASTTERM(b) && size[a] >= size[b]))
#ifdef NO_PROMISE
#define BOUND(s)	false
#else
#define BOUND(s)	(promise[s] != 0)
#endif
#ifdef NO_OWN_TERM
#define OWN(l, n)	true
#else
#define OWN(l, n)	(lterm[(l) * L + n - 1] == term[l])
#endif
/* (That it takes away a vote needs five processes: no guard here.) */
#define MAYCHANGE(l)	(com[l] > first[l])
#ifdef NO_ONE_AT_A_TIME
#define SETTLED(l)	true
#else
#define PLAIN(l, n)	(n < com[l] || n >= size[l] || lconf[(l) * L + n] == 0)
#define SETTLED(l)	(PLAIN(l, 1) && PLAIN(l, 2) && PLAIN(l, 3))
#endif
#ifdef NO_LOG_CHECK
#define ELECTABLE(c, v)	true
#else
#define ELECTABLE(c, v)	NEWER(c, v)
#endif
#define HAVE(l, n)	((1 << (l)) | (match[(l) * N] >= n) | (match[(l) * N + 1] >= n) << 1 | \
			    (match[(l) * N + 2] >= n) << 2 | (match[(l) * N + 3] >= n) << 3)

/* @s is a follower from here; nobody counts on the word of a leader that is none. */
inline step_down(s) {
	role[s] = FOLLOWER; votes[s] = 0; counts[s] = 0; first[s] = 0;
	match[(s) * N] = 0; match[(s) * N + 1] = 0; match[(s) * N + 2] = 0;
	match[(s) * N + 3] = 0
}

proctype Member(byte s) {
	byte f;
end:	do
	/* nobody leads: stand for election */
	:: atomic { role[s] != LEADER && promise[s] == 0 && term[s] < TERMS &&
	    (CONF(s) >> s & 1) ->
		d_step {
			step_down(s);
			term[s]++; vote[s] = s + 1; role[s] = CANDIDATE; votes[s] = 1 << s
		}
	   }
	/* ask another for its vote */
	:: atomic { role[s] == CANDIDATE ->
		if
		:: f = 0
		:: f = 1
		:: f = 2
		:: f = 3
		fi;
		d_step {
			if
			:: f != s && (CONF(s) >> f & 1) && !BOUND(f) &&
			   (term[s] > term[f] || (term[s] == term[f] &&
			   (vote[f] == 0 || vote[f] == s + 1))) && ELECTABLE(s, f) ->
				if
				:: term[s] > term[f] -> step_down(f)
				:: else
				fi;
				term[f] = term[s]; vote[f] = s + 1;
				votes[s] = votes[s] | (1 << f)
			:: f != s && (CONF(s) >> f & 1) && !BOUND(f) &&
			   term[s] > term[f] && !ELECTABLE(s, f) ->
				step_down(f); term[f] = term[s]; vote[f] = 0
			:: else
			fi;
			f = 0
		}
	   }
	:: atomic { role[s] == CANDIDATE && MAJORITY(votes[s], CONF(s)) && size[s] < L ->
		d_step {
			assert(led[term[s]] == 0);				/* 1 */
			led[term[s]] = s + 1;
			role[s] = LEADER; votes[s] = 0; promise[s] = 0;
			first[s] = size[s];
			lterm[s * L + size[s]] = term[s]; lconf[s * L + size[s]] = 0;
			size[s]++
		}
	   }
	/* change the membership by one */
	:: atomic { role[s] == LEADER && changes > 0 && size[s] < L && MAYCHANGE(s) &&
	    SETTLED(s) ->
		changes--;
		if
		:: f = 0
		:: f = 1
		:: f = 2
		:: f = 3
#ifdef NO_SINGLE
		:: f = 4
#endif
		fi;
		d_step {
			m = CONF(s) ^ (f == 4 -> 6 : 1 << f);
#ifdef NO_SINGLE
			m = (f == 4 -> (CONF(s) ^ 14) : m);
#endif
			if
			:: m != 0 && (m >> s & 1) ->
				lterm[s * L + size[s]] = term[s];
				lconf[s * L + size[s]] = m;
				size[s]++
			:: else
			fi;
			m = 0; f = 0
		}
	   }
	/* append to another, up to some entry; it promises */
	:: atomic { role[s] == LEADER ->
		if
		:: f = 0
		:: f = 1
		:: f = 2
		:: f = 3
		fi;
		if
		:: p = size[s]
		:: p = size[s] - 1
		fi;
		d_step {
			if
			:: f != s && (CONF(s) >> f & 1) && term[s] >= term[f] ->
				if
				:: term[s] > term[f] -> step_down(f); term[f] = term[s];
					vote[f] = 0
				:: term[s] == term[f] && role[f] != FOLLOWER -> step_down(f)
				:: else
				fi;
				/* what differs goes, what is there stays */
				q = 0;
				do
				:: q < p && q < size[f] &&
				   lterm[f * L + q] == lterm[s * L + q] -> q++
				:: else -> break
				od;
				if
				:: q < p ->
					i = q;
					do
					:: i == L -> break
					:: i < p -> lterm[f * L + i] = lterm[s * L + i];
						lconf[f * L + i] = lconf[s * L + i]; i++
					:: i >= p && i < L -> lterm[f * L + i] = 0;
						lconf[f * L + i] = 0; i++
					od;
					size[f] = p
				:: else
				fi;
				if
				:: match[s * N + f] < p -> match[s * N + f] = p
				:: else
				fi;
				if
				:: com[f] < com[s] && com[s] <= p -> com[f] = com[s]
				:: else
				fi;
				promise[f] = s + 1;
				counts[s] = counts[s] | (1 << f)
			:: else
			fi;
			f = 0; p = 0; q = 0; i = 0
		}
	   }
	/* commit */
	:: atomic { role[s] == LEADER && com[s] < size[s] &&
	    MAJORITY(HAVE(s, size[s]), CONF(s)) && OWN(s, size[s]) ->
		d_step { p = size[s]; i = 0;
			do
			:: i == p -> break
			:: else -> assert(gterm[i] == 0 ||
				gterm[i] == lterm[s * L + i]);		/* 2 */
				gterm[i] = lterm[s * L + i]; i++
			od;
			com[s] = p;
			gcom = (p > gcom -> p : gcom);
			i = 0; p = 0
		}
	   }
	:: atomic { role[s] == LEADER && com[s] < size[s] - 1 &&
	    MAJORITY(HAVE(s, (size[s] - 1)), CONF(s)) && OWN(s, (size[s] - 1)) ->
		d_step { p = size[s] - 1; i = 0;
			do
			:: i == p -> break
			:: else -> assert(gterm[i] == 0 ||
				gterm[i] == lterm[s * L + i]);		/* 2 */
				gterm[i] = lterm[s * L + i]; i++
			od;
			com[s] = p;
			gcom = (p > gcom -> p : gcom);
			i = 0; p = 0
		}
	   }
	/* read under the lease */
	:: atomic { role[s] == LEADER && com[s] > first[s] && com[s] != gcom &&
	    MAJORITY((counts[s] | (1 << s)), CONF(s)) -> assert(false) }	/* 3 */
	/* stop counting on promises; be free of one */
	:: atomic { role[s] == LEADER && counts[s] != 0 -> counts[s] = 0 }
	:: atomic { promise[s] != 0 && (role[promise[s] - 1] != LEADER ||
	    (counts[promise[s] - 1] >> s & 1) == 0) -> promise[s] = 0 }
	/* a crash */
	:: atomic { crashes > 0 ->
		crashes--;
		d_step {
			step_down(s); com[s] = 0;
#ifdef NO_DURABLE_VOTE
			vote[s] = 0;
#endif
#ifdef NO_RESTART_WAIT
			promise[s] = 0;
#endif
			skip
		}
	   }
	od
}

init {
	atomic {
		i = 0;
		do
		:: i == 3 -> break
		:: else -> term[i] = 1; size[i] = 1; lterm[i * L] = 1; com[i] = 1; i++
		od;
		i = 0;
		role[0] = LEADER; vote[0] = 1; led[1] = 1; gterm[0] = 1; gcom = 1;
		match[1] = 1; match[2] = 1;
		run Member(0); run Member(1); run Member(2); run Member(3)
	}
}
