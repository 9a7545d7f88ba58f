/* SPDX-License-Identifier: MIT */
/* fsd.c - the one executable: arguments in, a command with its options out.
 *
 *	fsd --role=R[,R...]   serve          fsd dev DIR MOUNT     a whole cluster here
 *	fsd mount MOUNT       use it         fsd umount MOUNT
 *	fsd disk init PATH    fsd key PATH   fsd admin ...   fsd bench ...   fsd help
 *
 * Exit status: 0 done; 1 failed; 2 wrong use or options. */
#include "fsd.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "conf/err.h"
#include "conf/log.h"
#include "conf/version.h"
#include "net/msg.h"
#include "roles/admin.h"
#include "roles/format.h"
#include "roles/process.h"

#define CONF_DEFAULT	"/etc/fsd.conf"

static void
usage(FILE *to)
{
	fputs("usage: fsd --role=ROLE[,ROLE...] [--config FILE] [--set SECTION.OPTION=VALUE]\n"
	    "           [--background] [--log FILE]\n"
	    "       fsd dev [--foreground] [--log FILE] [--size BYTES] DIR MOUNT\n"
	    "       fsd mount [-o ro,allow_other] [--config FILE] [--foreground] [--log FILE] MOUNT\n"
	    "       fsd umount [--lazy] MOUNT\n"
	    "       fsd disk init [--size BYTES] PATH\n"
	    "       fsd key FILE\n"
	    "       fsd admin [--config FILE] [--json] COMMAND...   (see fsd help admin)\n"
	    "       fsd check [--config FILE] [--repair [--discard] [--prefer tail|TARGET]]\n"
	    "           [--json]\n"
	    "       fsd bench [--config FILE] [--raw DIR] [--time SECONDS] [CASE...]\n"
	    "       fsd bench net serve [--config FILE] [--listen ADDR]\n"
	    "       fsd bench net [--config FILE] [--time SECONDS] [ADDR] [CASE...]\n"
	    "       fsd --print-config [--config FILE]\n"
	    "       fsd help [TOPIC]    fsd --help    fsd --version\n"
	    "roles: manager, metadata, storage\n", to);
}

int
fsd_wrong_use(const char *what, const char *which)
{
	fprintf(stderr, "fsd: %s '%s'\n", what, which);
	usage(stderr);
	return EXIT_USE;
}

static int
help(const char *topic)
{
	if (topic == NULL) {
		usage(stdout);
		fputs("topics: options, proto, admin, errors; see also fsd(1), fsd.conf(5), "
		    "fsd-admin(8), fsd-design(7)\n", stdout);
		return 0;
	}
	if (strcmp(topic, "options") == 0)
		conf_help(stdout, false);
	else if (strcmp(topic, "admin") == 0)
		admin_help(stdout);
	else if (strcmp(topic, "errors") == 0) {
#define X(name, code, next, text) \
		printf("%-22s %6d  %-8s %s\n", #name, code, #next, text);
		ERR_TABLE(X)
#undef X
	} else if (strcmp(topic, "proto") == 0) {
		const struct msg_method *m;

		for (unsigned i = 0; (m = msg_method_at(i)) != NULL; i++) {
			printf("0x%04x %s.%s (%s)\n", m->id, m->service, m->name,
			    m->retry);
			for (const struct msg_row *r = m->request->rows;
			    r->name != NULL; r++)
				printf("  > %-14s %-16s %s\n", r->type, r->name,
				    r->help);
			for (const struct msg_row *r = m->reply->rows;
			    r->name != NULL; r++)
				printf("  < %-14s %-16s %s\n", r->type, r->name,
				    r->help);
		}
	} else
		return fsd_wrong_use("no help on", topic);
	return 0;
}

int
fsd_load_conf(struct conf *c, const struct args *a)
{
	const char *path = a->config != NULL ? a->config : CONF_DEFAULT;
	char err[CONF_ERR_MAX];

	if (conf_init(c) != 0) {
		fprintf(stderr, "fsd: out of memory\n");
		return EXIT_USE;
	}
	if ((a->config != NULL || access(path, F_OK) == 0) &&
	    conf_load(c, path, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return EXIT_USE;
	}
	for (unsigned i = 0; i < a->set_n; i++) {
		const char *eq = strchr(a->set[i], '=');
		char name[128];

		if (eq == NULL || (size_t)(eq - a->set[i]) >= sizeof(name))
			return fsd_wrong_use("--set wants section.option=value, not",
			    a->set[i]);
		snprintf(name, sizeof(name), "%.*s", (int)(eq - a->set[i]),
		    a->set[i]);
		if (conf_set(c, name, eq + 1, err) != 0) {
			fprintf(stderr, "fsd: --set %s\n", err);
			return EXIT_USE;
		}
	}
	if (c->node_name[0] == '\0') {
		char host[64] = "node";

		gethostname(host, sizeof(host) - 1);
		if (conf_set(c, "node.name", host, err) != 0)
			conf_set(c, "node.name", "node", err);
	}
	if (conf_check(c, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return EXIT_USE;
	}
	log_format_json(c->log_format == 1);
	return 0;
}

int
fsd_plan_init(struct run_plan *p, const struct conf *c)
{
	char err[CONF_ERR_MAX];

	memset(p, 0, sizeof(*p));
	p->conf = c;
	for (unsigned i = 0; i < c->manager_addresses.n; i++) {
		const char *text = c->manager_addresses.v[i], *why;

		if (p->manager_n == sizeof(p->managers) / sizeof(p->managers[0]) ||
		    net_addr_parse(text, strlen(text), &p->managers[p->manager_n],
		    &why) != 0) {
			fprintf(stderr, "fsd: manager.addresses: '%s': %s\n", text,
			    why);
			return EXIT_USE;
		}
		p->manager_n++;
	}
	if (process_key_read(c->cluster_key_file, p->key, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return EXIT_USE;
	}
	snprintf(p->name, sizeof(p->name), "%s", c->node_name);
	snprintf(p->dir, sizeof(p->dir), "%s", c->node_directory);
	return 0;
}

/* ---- commands ---- */

static int
cmd_disk(const struct args *a)
{
	char err[CONF_ERR_MAX];

	if (a->word_n != 2 || strcmp(a->words[0], "init") != 0)
		return fsd_wrong_use("disk knows", "init PATH");
	if (format_disk(a->words[1], a->size, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return 1;
	}
	return 0;
}

static int
cmd_key(const struct args *a)
{
	char err[CONF_ERR_MAX];

	if (a->word_n != 1)
		return fsd_wrong_use("one file, please, for", "key");
	if (process_key_make(a->words[0], err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return 1;
	}
	return 0;
}

static int
cmd_help(const struct args *a)
{
	return help(a->word_n > 0 ? a->words[0] : NULL);
}

static const struct {
	const char *name;
	int	  (*run)(const struct args *);
} commands[] = {
	{ "dev", fsd_cmd_dev },		{ "mount", fsd_cmd_mount },
	{ "umount", fsd_cmd_umount },	{ "disk", cmd_disk },
	{ "key", cmd_key },		{ "admin", fsd_cmd_admin },
	{ "check", fsd_cmd_check },	{ "bench", fsd_cmd_bench },
	{ "help", cmd_help },
};

/* 0, or the exit status for wrong use. */
static int
parse_args(struct args *a, int argc, char **argv)
{
	static const struct option opts[] = {
		{ "role", required_argument, NULL, 'r' },
		{ "config", required_argument, NULL, 'c' },
		{ "set", required_argument, NULL, 's' },
		{ "size", required_argument, NULL, 'S' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "background", no_argument, NULL, 'b' },
		{ "log", required_argument, NULL, 'L' },
		{ "raw", required_argument, NULL, 'R' },
		{ "listen", required_argument, NULL, 'A' },
		{ "time", required_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'j' },
		{ "lazy", no_argument, NULL, 'l' },
		{ "repair", no_argument, NULL, 'x' },
		{ "discard", no_argument, NULL, 'd' },
		{ "prefer", required_argument, NULL, 'P' },
		{ "print-config", no_argument, NULL, 'p' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	int ch;

	while ((ch = getopt_long(argc, argv, "c:o:fh", opts, NULL)) != -1) {
		switch (ch) {
		case 'r':
			a->roles = optarg;
			break;
		case 'c':
			a->config = optarg;
			break;
		case 's':
			if (a->set_n == sizeof(a->set) / sizeof(a->set[0]))
				return fsd_wrong_use("too many --set, at", optarg);
			a->set[a->set_n++] = optarg;
			break;
		case 'S':
			a->size = optarg;
			break;
		case 'L':
			a->log = optarg;
			break;
		case 'R':
			a->raw = optarg;
			break;
		case 'A':
			a->listen = optarg;
			break;
		case 't':
			a->time = optarg;
			break;
		case 'o':
			a->mount_opts = optarg;
			break;
		case 'f':
			a->foreground = true;
			break;
		case 'b':
			a->background = true;
			break;
		case 'j':
			a->json = true;
			break;
		case 'l':
			a->lazy = true;
			break;
		case 'x':
			a->repair = true;
			break;
		case 'd':
			a->discard = true;
			break;
		case 'P':
			a->prefer = optarg;
			break;
		case 'p':
			a->print_config = true;
			break;
		case 'V':
			printf("fsd %s (wire %u, disk %u)\n", FSD_RELEASE, FSD_WIRE,
			    FSD_DISK);
			exit(0);
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			return EXIT_USE;
		}
	}
	a->words = argv + optind;
	a->word_n = argc - optind;
	return 0;
}

int
main(int argc, char **argv)
{
	struct rlimit files;
	struct args a = { 0 };
	int rc;

	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;	/* one per connection */
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if ((rc = parse_args(&a, argc, argv)) != 0)
		return rc;
	if (a.print_config) {
		struct conf c;

		if ((rc = fsd_load_conf(&c, &a)) == 0)
			conf_print(&c, stdout);
		conf_fini(&c);
		return rc;
	}
	if (a.roles != NULL)
		return a.word_n == 0 ? fsd_cmd_role(&a) :
		    fsd_wrong_use("--role takes no command, not", a.words[0]);
	if (a.word_n == 0) {
		usage(stderr);
		return EXIT_USE;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, a.words[0]) == 0) {
			a.words++;
			a.word_n--;
			return commands[i].run(&a);
		}
	}
	return fsd_wrong_use("unknown command", a.words[0]);
}
