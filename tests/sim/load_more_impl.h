/* SPDX-License-Identifier: MIT */
/* load_more_impl.h - what the files of tests/sim/load_more share. */
#ifndef TESTS_SIM_LOAD_MORE_IMPL_H
#define TESTS_SIM_LOAD_MORE_IMPL_H

#include "tests/sim/sim.h"

#define BLOCK		4096u
#define CUT_BLOCKS	48u		/* three chunks */
#define ORPHAN_MAX	(96u << 10)
#define STAY_MAX	400u
#define DATA_MAX	(CUT_BLOCKS * BLOCK)
#define LINKS		4u

enum more_kind { ORPHAN, CUTTER, LISTER, ATTRS, KINDS };

struct more {
	struct more_load *l;
	struct client_op  op;
	struct client_io  io;
	struct clock_timer think;
	struct rand	  rand;
	enum more_kind	  kind;
	unsigned	  id, client, left;
	bool		  dead, idle;
	void		(*then)(struct more *);
	int		  rc;
	char		  doing[64];
	struct client_file *file, *other;
	ino_id		  dir, ino;
	uint8_t		 *data;
	uint64_t	  begin_ns;
	/* orphan */
	uint8_t		 *model;
	uint32_t	  size, off, len;
	unsigned	  step, losses, round;
	/* cutter */
	unsigned	  block, blocks, first;	/* writes [first, first + blocks) of l->writes */
	/* lister */
	uint64_t	  cookie;
	unsigned	  made, pages;
	uint8_t		  seen[STAY_MAX];
	bool		  there[8];
	unsigned	  churn;
	/* attrs */
	uint32_t	  mode, nlink;
	int64_t		  mtime;
	unsigned	  link;
	bool		  linked[LINKS];
};

/* Value of a block: a stamp from 1, or 0 for zeros; one record a block that was written. */
struct cut_write {
	uint64_t begin_ns, end_ns;	/* end: UINT64_MAX while not acknowledged */
	uint32_t block;
	bool	 zeros;			/* of @block and all behind it */
};

struct more_load {
	struct sim	*s;
	struct more	*actors;
	unsigned	 n;
	ino_id		 cut_ino;
	bool		 cut_making;
	struct cut_write *writes;
	size_t		 write_n, write_cap;
};

/* ---- load_more.c ---- */
/* The next operation: @then when it has ended. */
void	more_begin(struct more *a, void (*then)(struct more *), const char *fmt, ...)
	    __attribute__((format(printf, 3, 4)));
struct client *more_client(const struct more *a);
void	more_op_done(struct client_op *op, int rc);
void	more_io_done(struct client_io *io, int rc);
/* Act again after a while. */
void	more_pause_ns(struct more *a, uint64_t max_ns);
void	more_must(struct more *a, int want);	/* its result is that */
void	more_next(struct more *a);		/* it ended well: act again */
/* The bytes of a read that has ended, into a->data; how many. */
size_t	more_take(struct more *a);
void	more_drop_files(struct more *a);

/* ---- load_orphan.c, load_cutter.c, load_dirs.c ---- */
void	more_orphan_act(struct more *a);
void	more_cut_act(struct more *a);
void	more_lister_act(struct more *a);
void	more_attrs_act(struct more *a);

#endif
