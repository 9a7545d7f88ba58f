/* SPDX-License-Identifier: MIT */
/* sim.h - a whole cluster of production code in one thread on virtual time under one seed.
 *
 * One or three managers, one or three metadata nodes, three or four storage nodes and some
 * clients, each with a clock, a hub and disks of its own, over the four fakes (clock, net,
 * disk, table).  A load runs against it while faults happen; then all is healed, everything
 * pending must end, and the checkers look at what is left.  The same seed gives the same
 * trace hash, always.
 *
 *	struct sim *s = sim_open(seed);
 *	sim_load(s);  sim_heal(s);  sim_check(s);
 *	hash = sim_close(s); */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/clock.h"
#include "conf/rand.h"
#include "net/addr.h"
#include "roles/client.h"

#define SIM_MANAGERS	4u		/* at most, the spare one included */
#define SIM_METADATAS	3u
#define SIM_STORAGES	4u
#define SIM_DISKS	3u		/* of one node, at most */
#define SIM_CLIENTS	3u
#define SIM_TARGETS	40u		/* more ids than targets are ever made */
enum { SIM_MANAGER0, SIM_METADATA0 = SIM_MANAGER0 + SIM_MANAGERS,
	SIM_STORAGE0 = SIM_METADATA0 + SIM_METADATAS,
	SIM_CLIENT0 = SIM_STORAGE0 + SIM_STORAGES,
	SIM_NODES = SIM_CLIENT0 + SIM_CLIENTS, SIM_ADMIN = SIM_NODES };

/* What may happen during sim_load(); each seed draws a subset and rates. */
enum {
	SIM_RESETS = 1,		/* connections break, also in mid-payload */
	SIM_CUTS = 2,		/* paths between two nodes go silent for a while, or one node's
				 * to all others */
	SIM_CRASHES = 4,	/* a server process dies and starts again */
	SIM_POWER = 8,		/* some or all servers at once, unsynced writes lost or torn */
	SIM_PAUSES = 16,	/* a process stops for a while and goes on */
	SIM_DRIFT = 32,		/* clocks run at different speeds */
	SIM_CLIENT_DEATH = 64,	/* one of the clients dies for good */
	SIM_FUSES = 128,	/* a server dies just when it starts its n-th disk request or
				 * frame from now; also soon after a start */
	SIM_SLOW_DISKS = 256,	/* some disks take long, all the time or for a while */
	SIM_LATE_FRAMES = 512,	/* some frames are seconds late */
	SIM_TIGHT = 1024,	/* little memory everywhere */
	SIM_BAD_DISK = 2048,	/* at last, one replica's disk fails reads or turns bits */
	SIM_STOPS = 4096,	/* a server is stopped cleanly and started, or all in turn */
	SIM_LEADERS = 8192,	/* who leads is hit, or hands over */
	SIM_FLAPS = 16384,	/* a path comes and goes */
	SIM_DISKS_NEW = 32768,	/* a disk is replaced by an empty one */
	SIM_MEMBERS = 65536,	/* managers and metadata nodes are added, removed, replaced */
	SIM_ROT = 131072,	/* the disks of one node turn bits, lose and misplace writes */
	SIM_ALL = 262143
};

struct sim;

/* Start the cluster and wait until the clients are ready.  @faults: SIM_*; what the seed
 * draws from. */
struct sim *sim_open(uint64_t seed, unsigned faults);
/* Run the load of tests/sim/load.c under faults. */
void	sim_load(struct sim *s);
/* Stop all faults, start what is down; every operation must end. */
void	sim_heal(struct sim *s);
/* All checkers; the cluster must be healed and quiet. */
void	sim_check(struct sim *s);
/* Free everything; the hash of the whole trace. */
uint64_t sim_close(struct sim *s);

/* ---- for the load and the checkers ---- */
const struct conf *sim_conf(const struct sim *s);
struct rand *sim_rand(struct sim *s);
struct clock *sim_clock(struct sim *s);
uint64_t sim_now(const struct sim *s);
/* NULL while that client is dead. */
struct client *sim_client(struct sim *s, unsigned i);
/* Rises whenever client @i may have lost what it had open: its session has ended. */
unsigned sim_losses(const struct sim *s, unsigned i);
unsigned sim_storages(const struct sim *s);	/* nodes 0.. of them */
struct storage *sim_storage(struct sim *s, unsigned i);
/* Who is sure to lead now; NULL: nobody. */
struct metadata *sim_metadata(struct sim *s);
struct manager *sim_manager(struct sim *s);
/* Of metadata node (manager) @i; NULL while it is down. */
struct group *sim_metadata_group(struct sim *s, unsigned i);
struct group *sim_manager_group(struct sim *s, unsigned i);
/* The newest that any manager knows; NULL while all are down. */
const struct routing *sim_routing(struct sim *s);
/* Run until done(ctx) is true, or fail with @what after @limit_s virtual seconds. */
void	sim_until(struct sim *s, bool (*done)(void *ctx), void *ctx, unsigned limit_s,
	    const char *what);
/* Print what went wrong, the seed and how to run it again; ends the process. */
void	sim_fail(struct sim *s, const char *fmt, ...)
	    __attribute__((noreturn, format(printf, 2, 3)));
/* How long to think instead of @ns: next to nothing while something is going on. */
bool	sim_plotted(const struct sim *s);
uint64_t sim_pace(const struct sim *s, uint64_t ns);
/* An operation of the load was answered; a read has shown what was not acknowledged. */
void	sim_plot_acked(struct sim *s);
void	sim_plot_seen(struct sim *s);
/* Into the trace (and with SIM_TRACE=1 in the environment, to stderr). */
void	sim_trace(struct sim *s, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

/* tests/sim/load.c */
struct load;
struct load *load_open(struct sim *s, unsigned ops);
bool	load_done(void *load);
struct more_load *load_more(struct load *l);
void	load_client_died(struct load *l, unsigned client);
/* After healing: read everything back through a live client and compare. */
void	load_check(struct load *l);
bool	load_checked(void *load);
void	load_close(struct load *l);

/* tests/sim/load_more.c */
struct more_load;
struct more_load *more_open(struct sim *s, unsigned ops);
ino_id	more_cut_ino(const struct more_load *l);	/* 0: not made yet */
bool	more_done(const struct more_load *l);
void	more_client_died(struct more_load *l, unsigned client);
void	more_close(struct more_load *l);

/* tests/sim/check.c */
struct check_seen;			/* versions that were seen at one replica */
/* No version of a chunk at storage node @i goes back; @seen is NULL at first.  @except: a
 * file that several clients truncate and write.  A chunk of it that was removed may be made
 * anew by a writer who has not heard of that, with a number of its own older epoch. */
void	check_versions(struct sim *s, unsigned i, struct check_seen **seen,
	    uint32_t life, ino_id except);
void	check_forget(struct check_seen *seen);
void	check_groups(struct sim *s);	/* all members hold the same */
/* Wait until every chain has all its replicas again. */
void	check_back(struct sim *s);
void	check_replicas(struct sim *s);	/* quiet replicas are equal; versions settled */
void	check_dump(struct sim *s);	/* every replica's chunks, to stderr */
void	check_tree(struct sim *s);	/* the namespace is consistent; no leaked chunks */

#endif
