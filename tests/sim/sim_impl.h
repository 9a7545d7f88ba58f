/* SPDX-License-Identifier: MIT */
/* sim_impl.h - the parts of the simulated cluster among themselves. */
#ifndef TESTS_SIM_SIM_IMPL_H
#define TESTS_SIM_SIM_IMPL_H

#include <xxhash.h>

#include "net/call.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/sim/net.h"
#include "tests/sim/sim.h"

#define SIM_CUTS_MAX	256u

/* plot.c: faults that belong together; most seeds have one. */
enum sim_plot { SIM_PLOT_NONE, SIM_PLOT_ISLAND, SIM_PLOT_LATE, SIM_PLOT_PAUSE,
	SIM_PLOT_POWER, SIM_PLOT_VOTES, SIM_PLOT_BREAKS, SIM_PLOT_ALONE, SIM_PLOT_RESYNC,
	SIM_PLOT_APART, SIM_PLOT_HEIRS, SIM_PLOTS };

struct sim_node {
	struct sim	*s;
	unsigned	 id;
	bool		 absent;	/* not in this topology, for now */
	bool		 gone;		/* for good */
	bool		 up, ready;
	bool		 paused;
	bool		 stopping;	/* a clean stop is under way */
	bool		 held;		/* the fault that took it down starts it again */
	struct clock	*clock;
	struct rand	 rand;
	struct sim_box	*box;		/* servers */
	struct net_hub	*hub;
	struct role_env	 env;
	struct stat_registry stats;
	struct clock_timer again;	/* on the world's clock: start, or go on */
	struct clock_timer blow;	/* dies at once */
	struct clock_timer leave;	/* a clean stop has ended */
	unsigned	 fuse;		/* disk requests and frames until then; 0: none */
	bool		 fuse_power;	/* it loses power then */
	uint64_t	 fuse_down_ms;	/* and is away for so long; 0: by chance */
	struct check_seen *seen;	/* storage: versions of its chunks */
	unsigned	 lives, disk_n;
	unsigned	 wipes;		/* metadata: how often it lost its data */
	struct uid128	 disks[SIM_DISKS];
	union {
		struct manager	*manager;
		struct metadata *metadata;
		struct storage	*storage;
		struct client	*client;
	};
};

struct sim_cut {
	struct sim	  *s;
	unsigned	   from, to, flaps;	/* flaps: how often it comes back */
	bool		   clear;
	enum sim_net_path  how;
	struct clock_timer mend;
};

struct sim {
	uint64_t	 seed;
	unsigned	 faults;
	struct rand	 rand;		/* the world's: faults, load */
	struct sim_clock *clocks;
	struct sim_net	*net;
	struct conf	 conf;
	struct net_addr	 managers[SIM_MANAGERS];
	unsigned	 manager_n, metadata_n, storage_n;
	unsigned	 metadata_late;	/* so many of them come in the middle */
	unsigned	 drift_ppm;
	uint32_t	 op_ppm, done_us;	/* faults of one-sided streams */
	uint64_t	 device_ns;	/* most time between two devices that go; 0: none */
	struct rand	 device_rand;
	struct clock_timer device;
	struct sim_node	 nodes[SIM_NODES];
	struct clock_timer fault, poll, mend_disk;
	uint64_t	 fault_ns;	/* most time between two */
	unsigned	 ops;		/* of the load, per actor */
	unsigned	 load_s;	/* it is healed after this long */
	unsigned	 slow_box;
	unsigned	 losses[SIM_CLIENTS];
	bool		 unsure[SIM_CLIENTS];	/* of its session, at any time */
	struct sim_cut	 cuts[SIM_CUTS_MAX];
	unsigned	 cut_at;
	unsigned	 roll_at;	/* rolling restart: next server; 0: none */
	struct clock_timer roll;
	unsigned	 frail;		/* storage node whose disks rot; SIM_NODES: none */
	bool		 healing;
	enum sim_plot	 plot;
	unsigned	 plot_of;	/* which of its kinds, by chance */
	unsigned	 style, blows;	/* of what its last act began; still to come */
	uint32_t	 hit[2];	/* targets, or a node */
	unsigned	 spark;		/* answers until the power fails; 0: it does not */
	uint64_t	 hot_until_ns;	/* the load is busy until then */
	struct clock_timer plot_timer, lag;
	XXH64_state_t	*trace;
	bool		 loud;
	struct load	*load;
	struct sim_admin *admin;
	struct sim_watch *watch;
	struct sim_probes *probes;
	unsigned	 polls;
};

/* sim.c */
void	sim_trace_line(struct sim *s, const char *who, const char *what,
	    const char *fields);
void	sim_boot(struct sim_node *n);
/* The process dies; with @power what its disks had not synced goes too. */
void	sim_die(struct sim_node *n, bool power);
void	sim_format(struct sim_node *n, unsigned disk);
bool	sim_all_ready(void *ctx);
static inline bool
sim_serves(const struct sim_node *n)
{
	return !n->absent && !n->gone && n->id < SIM_CLIENT0;
}

/* draw.c */
void	sim_draw_options(struct sim *s);
void	sim_draw(struct sim *s);
void	sim_draw_devices(struct sim *s);
void	sim_draw_device(struct sim *s);	/* one goes, then others, one after the other */

/* fault.c */
void	sim_faults_start(struct sim *s);
void	sim_faults_stop(struct sim *s);	/* and undo them: all nodes are started */
void	sim_faults_close(struct sim *s);
void	sim_fault_tick(struct sim_node *n);	/* a disk request or a frame of it starts */
void	sim_fault_die(struct sim_node *n);	/* soon, and start again later */
void	sim_fault_speed(struct sim_node *n, unsigned times);
/* What plots are made of; nothing happens when it cannot now. */
void	sim_fault_cut(struct sim *s, unsigned from, unsigned to, enum sim_net_path how,
	    uint64_t ns);
void	sim_fault_crash(struct sim_node *n, bool power, uint64_t down_ms);
void	sim_fault_pause(struct sim_node *n, uint64_t ms);
/* It dies when it starts its @ticks-th disk request or frame from now; 0: at once. */
void	sim_fault_fuse(struct sim_node *n, unsigned ticks, bool power, uint64_t down_ms);

/* plot.c */
void	sim_plot_draw(struct sim *s);
void	sim_plot_start(struct sim *s);
void	sim_plot_stop(struct sim *s);
const char *sim_plot_name(const struct sim *s);

/* admin.c: what an operator does */
void	sim_admin_open(struct sim *s);
void	sim_admin_close(struct sim *s);
struct net_hub *sim_admin_hub(struct sim *s);
struct clock *sim_admin_clock(struct sim *s);
bool	sim_admin_idle(const struct sim *s);
/* A disk of a storage node is replaced by an empty one, once it can be spared. */
void	sim_admin_disk(struct sim *s);
/* A working disk of a storage node is replaced by another one beside it. */
void	sim_admin_move(struct sim *s);
/* A metadata node is removed and added again, or loses its data and is replaced. */
void	sim_admin_metadata(struct sim *s);
/* A manager is added, removed, or loses its data and is replaced. */
void	sim_admin_manager(struct sim *s);

/* probe.c */
void	sim_probes_open(struct sim *s);
void	sim_probes_close(struct sim *s);
void	sim_probe(struct sim *s);

/* watch.c */
/* @t answers readers now, by the chain version it is in. */
struct storage_target;
bool	sim_shows(struct storage_target *t);
void	sim_watch_open(struct sim *s);
void	sim_watch_close(struct sim *s);
/* Fails unless what must hold at every moment does; with @bytes it also looks at what each
 * replica has. */
void	sim_watch(struct sim *s, bool bytes);

#endif
