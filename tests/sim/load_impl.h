/* SPDX-License-Identifier: MIT */
/* load_impl.h - what the files of tests/sim/load share. */
#ifndef TESTS_SIM_LOAD_IMPL_H
#define TESTS_SIM_LOAD_IMPL_H

#include "tests/sim/sim.h"

#define BLOCK		4096u
#define SHARED_FILES	2u
#define SHARED_BLOCKS	40u		/* 160 KiB: three chunks of 64 KiB */
#define PRIVATE_MAX	(200u << 10)
#define NAMES		6u		/* per directory of a names actor */
#define ARENA_NAMES	4u		/* names that all fight over */
#define IO_BLOCKS_MAX	20u

struct write_rec {
	uint64_t begin_ns;
	uint64_t known_ns;		/* when it was done for certain: acknowledged, or read */
	uint64_t over_ns;		/* and when something else had taken its place */
	uint32_t file, block;
};

enum kind { SHARED, PRIVATE, NAME };

struct actor {
	struct load	 *l;
	struct client_op  op;
	struct client_io  io;
	struct clock_timer think;
	struct rand	  rand;
	enum kind	  kind;
	unsigned	  id, client;
	unsigned	  left;		/* operations still to do */
	bool		  dead;		/* with its client */
	bool		  idle;		/* nothing in flight and nothing left */
	void		(*then)(struct actor *);	/* after the operation */
	int		  rc;
	struct client_file *file;
	unsigned	  losses;	/* of its client when the file was opened */
	bool		  told;		/* of a loss since then */
	/* shared */
	unsigned	  target, block, blocks;
	uint64_t	  begin_ns;
	uint64_t	  stamps[IO_BLOCKS_MAX];
	uint8_t		 *data;
	/* private */
	ino_id		  ino;
	uint8_t		 *model, *durable, *maybe;
	uint32_t	  size, durable_size;
	bool		  size_maybe;
	uint32_t	  off, len;
	uint32_t	  fill;
	/* names */
	ino_id		  dir, arena;
	struct {
		uint32_t type;		/* S_IF*, 0: not there */
		ino_id	 ino;
	} names[NAMES];
	unsigned	  a, b, what;
	uint64_t	  cached_until_ns[ARENA_NAMES];	/* a kernel may think it is there */
	char		  doing[48];
};

struct load {
	struct sim	*s;
	struct actor	*actors;
	unsigned	 n;
	struct write_rec *writes;	/* stamp i + 1 is writes[i] */
	size_t		 write_n, write_cap;
	ino_id		 shared_ino[SHARED_FILES], arena;
	unsigned	 span;		/* blocks of them that are used: few, so that actors
					 * meet, or all */
	int		 arena_made[ARENA_NAMES];	/* successful creates - removes */
	unsigned	 arena_flying[ARENA_NAMES];	/* of clients that died */
	bool		 started;
	struct actor	 checker;
	struct more_load *more;
	unsigned	 check_at;
	bool		 checked;
};

/* ---- load.c ---- */
struct client *load_client_of(struct actor *a);
void	load_op_done(struct client_op *op, int rc);	/* go on with a->then */
void	load_io_done(struct client_io *io, int rc);
void	load_begin(struct actor *a, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
/* One operation is over; go on after a random pause. */
void	load_next(struct actor *a);
/* Has the operation failed because the session of its client has ended?  No other error
 * is right. */
bool	load_lost(struct actor *a);
/* Something may be lost of which nobody has heard yet. */
bool	load_in_doubt(const struct actor *a);
void	load_reopen(struct actor *a, ino_id ino, void (*then)(struct actor *));
/* The bytes of a read, into a->data. How many. */
size_t	load_take_read(struct actor *a);

/* ---- load_shared.c ---- */
void	load_shared_act(struct actor *a);
void	load_shared_opened(struct actor *a);
/* What a read of one block returned is one of the values the register could have. */
void	load_judge_block(struct actor *a, uint32_t file, uint32_t block, const uint8_t *p,
	    uint64_t begin, uint64_t end);

/* ---- load_private.c ---- */
void	load_private_act(struct actor *a);
void	load_private_opened(struct actor *a);
/* The session may have ended: look at what is left. */
void	load_private_doubt(struct actor *a);
void	load_private_compare(struct actor *a, const uint8_t *got, size_t n);
/* After a loss: nothing of what fsync had acknowledged is missing. */
void	load_private_survived(struct actor *p, const uint8_t *got, size_t n);

/* ---- load_names.c ---- */
void	load_name_act(struct actor *a);

#endif
