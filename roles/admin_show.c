/* SPDX-License-Identifier: MIT */
/* admin_show.c - columns.  Every row goes through one printer, so text and JSON always
 * say the same. */
#include "roles/admin_show.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define COLUMNS_MAX	24u
#define CELL_MAX	512u

/* A table being built: cells are kept until the widths are known. */
struct show {
	FILE	   *to;
	bool	    json;
	const char *const *heads;
	unsigned    columns;
	char	  (*cells)[CELL_MAX];
	size_t	    n, cap;		/* cells */
};

static void
show_begin(struct show *s, FILE *to, bool json, const char *const *heads)
{
	*s = (struct show){ .to = to, .json = json, .heads = heads };
	while (heads[s->columns] != NULL)
		s->columns++;
	assert(s->columns <= COLUMNS_MAX);
}

__attribute__((format(printf, 2, 3))) static void
cell(struct show *s, const char *fmt, ...)
{
	va_list ap;

	if (s->n == s->cap) {
		size_t cap = s->cap == 0 ? 64 : s->cap * 2;
		void *p = realloc(s->cells, cap * CELL_MAX);

		if (p == NULL) {
			fprintf(stderr, "fsd admin: out of memory\n");
			exit(1);
		}
		s->cells = p;
		s->cap = cap;
	}
	va_start(ap, fmt);
	vsnprintf(s->cells[s->n++], CELL_MAX, fmt, ap);
	va_end(ap);
}

/* A name from elsewhere, without control characters. */
static void
cell_str(struct show *s, struct msg_str v)
{
	char text[CELL_MAX];
	unsigned n = v.n < sizeof(text) - 1 ? v.n : (unsigned)sizeof(text) - 1;

	for (unsigned i = 0; i < n; i++)
		text[i] = iscntrl((unsigned char)v.p[i]) ? '?' : v.p[i];
	text[n] = '\0';
	cell(s, "%s", n > 0 ? text : "-");
}

static void
cell_bytes(struct show *s, uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	double v = (double)bytes;
	unsigned u = 0;

	if (s->json) {
		cell(s, "%" PRIu64, bytes);
		return;
	}
	for (; v >= 1024 && u < 5; u++)
		v /= 1024;
	cell(s, u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
}

static void
cell_ms(struct show *s, uint64_t ms)
{
	if (ms == UINT64_MAX)
		cell(s, "never");
	else if (s->json)
		cell(s, "%" PRIu64, ms);
	else
		cell(s, "%.1f s", (double)ms / 1000);
}

void
admin_show_string(FILE *to, const char *text)
{
	fputc('"', to);
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', to);
		if (iscntrl((unsigned char)*text))
			fprintf(to, "\\u%04x", (unsigned char)*text);
		else
			fputc(*text, to);
	}
	fputc('"', to);
}

static bool
is_number(const char *text)
{
	if (*text == '\0' || (*text == '0' && text[1] != '\0') || strlen(text) > 20)
		return false;
	return text[strspn(text, "0123456789")] == '\0';
}

static void
show_json(const struct show *s)
{
	fputs("[", s->to);
	for (size_t i = 0; i < s->n; i++) {
		unsigned c = (unsigned)(i % s->columns);

		fputs(c > 0 ? ", " : i > 0 ? ",\n {" : "\n {", s->to);
		admin_show_string(s->to, s->heads[c]);
		fputs(": ", s->to);
		if (is_number(s->cells[i]))
			fputs(s->cells[i], s->to);
		else
			admin_show_string(s->to, s->cells[i]);
		if (c == s->columns - 1)
			fputs("}", s->to);
	}
	fputs("\n]\n", s->to);
}

/* Padded to the column's width, but for the last of a line. */
static void
text_cell(const struct show *s, unsigned c, size_t width, const char *text)
{
	if (c + 1 < s->columns)
		fprintf(s->to, "%-*s  ", (int)width, text);
	else
		fprintf(s->to, "%s\n", text);
}

static void
show_text(const struct show *s)
{
	size_t width[COLUMNS_MAX];

	for (unsigned c = 0; c < s->columns; c++)
		width[c] = strlen(s->heads[c]);
	for (size_t i = 0; i < s->n; i++) {
		size_t w = strlen(s->cells[i]);

		if (w > width[i % s->columns])
			width[i % s->columns] = w;
	}
	for (unsigned c = 0; c < s->columns; c++)
		text_cell(s, c, width[c], s->heads[c]);
	for (size_t i = 0; i < s->n; i++) {
		unsigned c = (unsigned)(i % s->columns);

		text_cell(s, c, width[c], s->cells[i]);
	}
}

static void
show_end(struct show *s)
{
	if (s->json)
		show_json(s);
	else
		show_text(s);
	free(s->cells);
}

static const struct msg_node_status *
status_of(const struct admin_facts *f, uint32_t node)
{
	for (uint32_t i = 0; i < f->status->nodes.n; i++)
		if (f->status->nodes.v[i].node == node)
			return &f->status->nodes.v[i];
	return NULL;
}

static const char *
roles_text(uint32_t roles, char out[64])
{
	snprintf(out, 64, "%s%s%s", roles & NODE_MANAGER ? ",manager" : "",
	    roles & NODE_METADATA ? ",metadata" : "",
	    roles & NODE_STORAGE ? ",storage" : "");
	return out[0] == ',' ? out + 1 : "-";
}

void
admin_show_nodes(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "node", "name", "roles", "state", "seen",
		"disks", "release", "addresses", NULL };
	struct show s;

	show_begin(&s, to, json, heads);
	for (uint32_t i = 0; i < f->routing->nodes.n; i++) {
		const struct msg_rt_node *n = &f->routing->nodes.v[i];
		const struct msg_node_status *st = status_of(f, n->id);
		char roles[64], addrs[CELL_MAX] = "";

		cell(&s, "%u", n->id);
		cell_str(&s, n->name);
		cell(&s, "%s", roles_text(n->roles, roles));
		cell(&s, "%s", n->state == NODE_UP ? "up" : "down");
		cell_ms(&s, st != NULL ? st->seen_ms : UINT64_MAX);
		cell(&s, "%u", st != NULL ? st->disks.n : 0);
		cell_str(&s, st != NULL ? st->release : msg_str(""));
		for (uint32_t k = 0; k < n->addrs.n; k++) {
			size_t at = strlen(addrs);

			snprintf(addrs + at, sizeof(addrs) - at, "%s%.*s",
			    k > 0 ? "," : "", (int)n->addrs.v[k].n,
			    n->addrs.v[k].p);
		}
		cell_str(&s, msg_str(addrs));
	}
	show_end(&s);
}

void
admin_show_disks(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "disk", "node", "loop", "state", "used",
		"capacity", "targets", "damaged", "path", NULL };
	static const char *const health[] = { "ok", "failed", "gone", "replaced" };
	struct show s;

	show_begin(&s, to, json, heads);
	for (uint32_t i = 0; i < f->status->nodes.n; i++) {
		const struct msg_node_status *n = &f->status->nodes.v[i];

		for (uint32_t k = 0; k < n->disks.n; k++) {
			const struct msg_disk_info *d = &n->disks.v[k];
			char id[UID128_TEXT];

			uid128_text(&d->disk, id);
			cell(&s, "%s", id);
			cell(&s, "%u", n->node);
			cell(&s, "%u", d->loop);
			cell(&s, "%s", d->failed < 4 ? health[d->failed] : "?");
			cell_bytes(&s, d->used);
			cell_bytes(&s, d->capacity);
			cell(&s, "%u", d->targets);
			cell(&s, "%u", d->damaged);
			cell_str(&s, d->path);
		}
	}
	show_end(&s);
}

static const char *
state_word(uint32_t state)
{
	static const char *const words[] = { "?", "serving", "lastsrv", "syncing",
		"waiting", "offline", "apart" };

	return words[state <= TARGET_APART ? state : 0];
}

static const char *
target_word(const struct admin_facts *f, uint32_t chain, uint32_t target)
{
	for (uint32_t i = 0; i < f->routing->chains.n; i++) {
		const struct msg_rt_chain *c = &f->routing->chains.v[i];

		if (c->id != chain)
			continue;
		for (uint32_t k = 0; k < c->targets.n && k < c->states.n; k++)
			if (c->targets.v[k] == target)
				return state_word(c->states.v[k]);
	}
	return chain == 0 ? "free" : "?";
}

void
admin_show_targets(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "target", "chain", "state", "node", "loop",
		"disk", NULL };
	struct show s;

	show_begin(&s, to, json, heads);
	for (uint32_t i = 0; i < f->routing->targets.n; i++) {
		const struct msg_rt_target *t = &f->routing->targets.v[i];
		char id[UID128_TEXT];

		uid128_text(&t->disk, id);
		cell(&s, "%u", t->id);
		cell(&s, "%u", t->chain);
		cell(&s, "%s", target_word(f, t->chain, t->id));
		cell(&s, "%u", t->node);
		cell(&s, "%u", t->loop);
		cell(&s, "%s", id);
	}
	show_end(&s);
}

static void
cell_ids(struct show *s, const uint32_t *ids, uint32_t n)
{
	char text[CELL_MAX] = "-";
	size_t at = 0;

	for (uint32_t k = 0; k < n && at < sizeof(text) - 12; k++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%u",
		    k > 0 ? " " : "", ids[k]);
	cell(s, "%s", text);
}

/* A chain in one word, from its replicas. */
static const char *
chain_word(const struct msg_rt_chain *c)
{
	uint32_t of[TARGET_APART + 1] = { 0 };

	for (uint32_t k = 0; k < c->states.n; k++)
		of[c->states.v[k] <= TARGET_APART ? c->states.v[k] : 0]++;
	if (c->state != CHAIN_SERVING)
		return of[TARGET_LASTSRV] > 0 ? "waits" : "recovering";
	return of[TARGET_SERVING] == c->targets.n || c->states.n == 0 ? "serving" :
	    of[TARGET_SYNCING] > 0 ? "syncing" : "degraded";
}

static void
cell_replicas(struct show *s, const struct msg_rt_chain *c)
{
	char text[CELL_MAX] = "-";
	size_t at = 0;

	for (uint32_t k = 0; k < c->targets.n && at < sizeof(text) - 24; k++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%u=%s",
		    k > 0 ? " " : "", c->targets.v[k],
		    k < c->states.n ? state_word(c->states.v[k]) : "?");
	cell(s, "%s", text);
}

/* What is equal by now, what had to be copied for it, how fast, and how long the rest takes at
 * this pace. */
static void
cell_sync(struct show *s, const struct admin_facts *f, uint32_t chain)
{
	const struct msg_sync_status *y = NULL;
	char left[32];

	for (uint32_t i = 0; i < f->status->syncs.n; i++) {
		const struct msg_sync_status *at = &f->status->syncs.v[i];

		if (at->chain == chain && (y == NULL || y->rc != 0))
			y = at;		/* one that goes on is worth more */
	}
	if (y == NULL) {
		cell(s, "-");
		return;
	}
	if (y->rc != 0) {
		cell(s, "%u failed %u times: %s; again in %.0f s", y->target,
		    y->tries, err_text(y->rc), (double)y->again_ms / 1000);
		return;
	}
	if (y->left_ms == UINT64_MAX)
		snprintf(left, sizeof(left), "-");
	else
		snprintf(left, sizeof(left), "%.0f", (double)y->left_ms / 1000);
	cell(s, "%" PRIu64 "/%" PRIu64 " chunks, %" PRIu64 " copied, %.1f MiB, "
	    "%.1f MiB/s, %s s left", y->done, y->total, y->copied,
	    (double)y->bytes / 1048576, (double)y->rate / 1048576, left);
}

void
admin_show_chains(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "chain", "version", "state", "replicas",
		"progress", NULL };
	struct show s;

	show_begin(&s, to, json, heads);
	for (uint32_t i = 0; i < f->routing->chains.n; i++) {
		const struct msg_rt_chain *c = &f->routing->chains.v[i];

		cell(&s, "%u", c->id);
		cell(&s, "%u", c->version);
		cell(&s, "%s", chain_word(c));
		cell_replicas(&s, c);
		cell_sync(&s, f, c->id);
	}
	show_end(&s);
}

void
admin_show_tables(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "table", "version", "chains", NULL };
	struct show s;

	show_begin(&s, to, json, heads);
	for (uint32_t i = 0; i < f->routing->tables.n; i++) {
		const struct msg_rt_table *t = &f->routing->tables.v[i];

		cell(&s, "%u", t->id);
		cell(&s, "%u", t->version);
		cell_ids(&s, t->chains.v, t->chains.n);
	}
	show_end(&s);
}

void
admin_show_clients(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "client", "host", "pid", "mount", "since",
		"seen", "release", NULL };
	struct show s;

	show_begin(&s, to, json, heads);
	for (uint32_t i = 0; i < f->clients->clients.n; i++) {
		const struct msg_client_row *c = &f->clients->clients.v[i];
		char id[UID128_TEXT];

		uid128_text(&c->client, id);
		cell(&s, "%s", id);
		cell_str(&s, c->host);
		cell(&s, "%" PRIu64, c->pid);
		cell_str(&s, c->mount);
		cell_ms(&s, c->since_ms);
		cell_ms(&s, c->seen_ms);
		cell_str(&s, c->release);
	}
	show_end(&s);
}

void
admin_show_managers(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "address", "member", "state", NULL };
	struct show s;

	show_begin(&s, to, json, heads);
	for (uint32_t i = 0; i < f->managers->managers.n; i++) {
		const struct msg_manager_row *r = &f->managers->managers.v[i];

		cell_str(&s, r->addr);
		cell(&s, "%016" PRIx64, r->member);
		cell(&s, "%s%s", r->leader ? "leads" : r->voter ? "follows" :
		    "is brought up to date", r->wanted ? "" : ", is removed");
	}
	show_end(&s);
}

static bool
holds(const msg_t_list_u64 *list, uint64_t member)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (list->v[i] == member)
			return true;
	return false;
}

static const struct msg_rt_node *
node_of(const struct msg_routing_rep *r, uint32_t id)
{
	for (uint32_t i = 0; i < r->nodes.n; i++)
		if (r->nodes.v[i].id == id)
			return &r->nodes.v[i];
	return NULL;
}

/* What the leader told is of now, the row of what is to be. */
static const char *
member_state(const struct msg_rt_group *g, uint32_t i, const struct msg_rt_node *n,
    const struct msg_group_status *told)
{
	uint64_t member = g->members.v[i];

	if (n == NULL || n->state != NODE_UP)
		return "is down";
	if (uid128_zero(&g->group))
		return "is to found the group";
	if (told == NULL)
		return "nobody leads";
	return holds(&told->learners, member) ? "is brought up to date" :
	    !holds(&told->voters, member) ? "is to be added" :
	    g->leader == g->nodes.v[i] ? "leads" : "follows";
}

void
admin_show_metadata(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "node", "name", "member", "state", NULL };
	const struct msg_group_status *told = f->status->groups.n > 0 ?
	    &f->status->groups.v[0] : NULL;
	struct show s;

	show_begin(&s, to, json, heads);
	for (uint32_t k = 0; k < f->routing->groups.n; k++) {
		const struct msg_rt_group *g = &f->routing->groups.v[k];

		for (uint32_t i = 0; i < g->nodes.n && i < g->members.n; i++) {
			const struct msg_rt_node *n = node_of(f->routing,
			    g->nodes.v[i]);

			cell(&s, "%" PRIu32, g->nodes.v[i]);
			cell_str(&s, n == NULL ? msg_str("") : n->name);
			cell(&s, "%016" PRIx64, g->members.v[i]);
			cell(&s, "%s", member_state(g, i, n, told));
		}
		for (uint32_t i = 0; told != NULL && i < told->voters.n; i++) {
			if (holds(&g->members, told->voters.v[i]))
				continue;
			cell(&s, "-");
			cell(&s, "-");
			cell(&s, "%016" PRIx64, told->voters.v[i]);
			cell(&s, "is removed");
		}
	}
	show_end(&s);
}

void
admin_show_space(FILE *to, const struct admin_facts *f, bool json)
{
	static const char *const heads[] = { "total", "used", "free", NULL };
	uint64_t total = f->status->total_bytes, used = f->status->used_bytes;
	struct show s;

	show_begin(&s, to, json, heads);
	cell_bytes(&s, total);
	cell_bytes(&s, used);
	cell_bytes(&s, used < total ? total - used : 0);
	show_end(&s);
}

void
admin_show_rdma(FILE *to, const struct admin_rdma *r, bool json)
{
	static const char *const heads[] = { "node", "role", "device", "port", "link", "mtu",
		"gid", "connections", "credits", "sent", "posts", "waits", "read",
		"written", "copied", "errors", "state", NULL };
	struct show s;

	show_begin(&s, to, json, heads);
	for (size_t i = 0; i < r->n; i++) {
		const struct admin_rdma_row *row = &r->rows[i];

		cell_str(&s, msg_str(row->node));
		cell_str(&s, msg_str(row->role));
		cell_str(&s, msg_str(row->device));
		cell_str(&s, msg_str(row->port));
		cell_str(&s, msg_str(row->link));
		cell(&s, "%" PRIu64, row->mtu);
		cell_str(&s, msg_str(row->gid));
		cell(&s, "%" PRIu64, row->connections);
		cell(&s, "%" PRIu64, row->credits);
		cell(&s, "%" PRIu64, row->sends_total);
		cell(&s, "%" PRIu64, row->posts_total);
		cell(&s, "%" PRIu64, row->waits_total);
		cell_bytes(&s, row->read_bytes_total);
		cell_bytes(&s, row->write_bytes_total);
		cell_bytes(&s, row->copied_bytes_total);
		cell(&s, "%" PRIu64, row->errors_total);
		cell_str(&s, msg_str(row->note[0] != '\0' ? row->note :
		    row->up != 0 ? "up" : "down"));
	}
	show_end(&s);
}
