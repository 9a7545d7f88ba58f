/* SPDX-License-Identifier: MIT */
/* fsd.h - what fsd.c (arguments), fsd_serve.c (what goes on and serves) and fsd_ask.c (what
 * asks a cluster, and ends) share.  Nobody else includes this. */
#ifndef FSD_H
#define FSD_H

#include <stdbool.h>

#include "conf/conf.h"
#include "roles/run.h"

#define EXIT_USE	2

/* What the options before and after the command said. */
struct args {
	const char *config;		/* NULL: /etc/fsd.conf when it is there */
	const char *roles;
	const char *set[64];		/* section.option=value */
	unsigned    set_n;
	const char *mount_opts;
	const char *size, *raw, *log, *listen, *time;
	bool	    foreground, background, json, lazy, print_config, repair, discard;
	const char *prefer;
	char	  **words;		/* what is left */
	int	    word_n;
};

/* Say so, and how to use it; EXIT_USE. */
int	fsd_wrong_use(const char *what, const char *which);
/* Options file, then --set.  Prints what is wrong; 0 or EXIT_USE. */
int	fsd_load_conf(struct conf *c, const struct args *a);
/* Addresses and key: what every plan needs of the options.  0 or EXIT_USE. */
int	fsd_plan_init(struct run_plan *p, const struct conf *c);

/* The commands: each returns the exit status. */
int	fsd_cmd_role(const struct args *a);	/* fsd_serve.c */
int	fsd_cmd_mount(const struct args *a);
int	fsd_cmd_dev(const struct args *a);
int	fsd_cmd_umount(const struct args *a);
int	fsd_cmd_admin(const struct args *a);	/* fsd_ask.c */
int	fsd_cmd_check(const struct args *a);
int	fsd_cmd_bench(const struct args *a);

#endif
