/* SPDX-License-Identifier: MIT */
/* stat.c - the text of counters, gauges and histograms. */
#include "conf/stat.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint64_t
load(const uint64_t *v)
{
	return __atomic_load_n(v, __ATOMIC_RELAXED);
}

uint64_t
stat_hist_count(const struct stat_hist *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < STAT_BUCKETS; i++)
		n += load(&h->bucket[i]);
	return n;
}

uint64_t
stat_hist_quantile(const struct stat_hist *h, uint32_t num, uint32_t den)
{
	uint64_t n = stat_hist_count(h), seen = 0, want;

	assert(den > 0 && num <= den);
	if (n == 0)
		return 0;
	want = n / den * num + (n % den * num + den - 1) / den;
	for (unsigned i = 0; i + 1 < STAT_BUCKETS; i++) {
		seen += load(&h->bucket[i]);
		if (seen >= want)
			return 1024ull << i;
	}
	return UINT64_MAX;
}

void
stat_registry_init(struct stat_registry *r)
{
	list_init(&r->sets);
	r->process = 0;
	pthread_mutex_init(&r->lock, NULL);	/* cannot fail: it has no attributes */
}

void
stat_registry_fini(struct stat_registry *r)
{
	assert(list_empty(&r->sets));
	pthread_mutex_destroy(&r->lock);
}

void
stat_register(struct stat_registry *r, struct stat_set *set)
{
	pthread_mutex_lock(&r->lock);
	list_push_back(&r->sets, &set->node);
	pthread_mutex_unlock(&r->lock);
	set->registry = r;
}

void
stat_remove(struct stat_set *set)
{
	struct stat_registry *r = set->registry;

	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	list_remove(&set->node);
	pthread_mutex_unlock(&r->lock);
	set->registry = NULL;
}

void
stat_label(struct stat_set *set, const char *key, const char *text)
{
	size_t n = strlen(set->labels), cap = sizeof(set->labels);

	if (n + strlen(key) + 5 > cap)
		return;
	n += (size_t)snprintf(set->labels + n, cap - n, "%s%s=\"", n > 0 ? "," : "", key);
	for (; *text != '\0' && n + 2 < cap; text++)
		if (*text != '"' && *text != '\\' && (unsigned char)*text >= ' ')
			set->labels[n++] = *text;
	set->labels[n++] = '"';
	set->labels[n] = '\0';
}

void
stat_attach(struct stat_registry *r, struct stat_set *set, const char *prefix,
    const char *who, const struct stat_row *rows, const void *values)
{
	assert(set->registry == NULL);
	if (r == NULL)
		return;
	set->prefix = prefix;
	set->rows = rows;
	set->values = values;
	set->labels[0] = '\0';
	stat_label(set, "role", who);
	stat_register(r, set);
}

/* ---- text ---- */

static bool
in_seconds(const char *name)
{
	size_t n = strlen(name);

	return n > 3 && strcmp(name + n - 3, "_ns") == 0;
}

/* "fsd_storage_read_seconds": the name a row has outside. */
static void
outer_name(const struct stat_set *s, const struct stat_row *row, char *out,
    size_t cap)
{
	size_t n = strlen(row->name);
	bool seconds = in_seconds(row->name);

	snprintf(out, cap, "%s_%.*s%s%s", s->prefix,
	    (int)(seconds ? n - 3 : n), row->name, seconds ? "_seconds" : "",
	    row->kind == STAT_counter ? "_total" : "");
}

static void
say_value(FILE *out, uint64_t v, bool seconds)
{
	if (seconds)
		fprintf(out, "%" PRIu64 ".%09" PRIu64 "\n", v / 1000000000,
		    v % 1000000000);
	else
		fprintf(out, "%" PRIu64 "\n", v);
}

static void
say_hist(FILE *out, const struct stat_set *s, const char *name,
    const struct stat_hist *h, bool seconds)
{
	const char *comma = s->labels[0] != '\0' ? "," : "";
	const char *open = s->labels[0] != '\0' ? "{" : "";
	const char *close = s->labels[0] != '\0' ? "}" : "";
	uint64_t n = 0;

	for (unsigned i = 0; i < STAT_BUCKETS; i++) {
		n += load(&h->bucket[i]);
		fprintf(out, "%s_bucket{%s%sle=\"", name, s->labels, comma);
		if (i + 1 == STAT_BUCKETS)
			fputs("+Inf", out);
		else if (seconds)
			fprintf(out, "%.9g", (double)(1024ull << i) / 1e9);
		else
			fprintf(out, "%llu", 1024ull << i);
		fprintf(out, "\"} %" PRIu64 "\n", n);
	}
	fprintf(out, "%s_sum%s%s%s ", name, open, s->labels, close);
	say_value(out, load(&h->sum), seconds);
	fprintf(out, "%s_count%s%s%s %" PRIu64 "\n", name, open, s->labels, close,
	    n);
}

static void
say_row(FILE *out, const struct stat_set *s, const struct stat_row *row,
    const char *name)
{
	const void *v = (const char *)s->values + row->off;

	if (row->kind == STAT_hist) {
		say_hist(out, s, name, v, in_seconds(row->name));
		return;
	}
	fprintf(out, "%s%s%s%s ", name, s->labels[0] != '\0' ? "{" : "", s->labels,
	    s->labels[0] != '\0' ? "}" : "");
	say_value(out, load(v), in_seconds(row->name));
}

/* One metric: its head, then the values of all sets that have these rows. */
static void
say_metric(const struct stat_registry *r, const struct stat_set *first,
    const struct stat_row *row, FILE *out)
{
	static const char *const kinds[] = { "counter", "gauge", "histogram" };
	char name[256];

	outer_name(first, row, name, sizeof(name));
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, row->help, name,
	    kinds[row->kind]);
	list_for_each(it, &r->sets) {
		const struct stat_set *s = list_entry(it, struct stat_set, node);

		if (s->rows == first->rows && strcmp(s->prefix, first->prefix) == 0)
			say_row(out, s, row, name);
	}
}

static bool
said_before(const struct stat_registry *r, const struct stat_set *set)
{
	list_for_each(it, &r->sets) {
		const struct stat_set *s = list_entry(it, struct stat_set, node);

		if (s == set)
			return false;
		if (s->rows == set->rows && strcmp(s->prefix, set->prefix) == 0)
			return true;
	}
	return false;
}

void
stat_print(struct stat_registry *r, FILE *out)
{
	pthread_mutex_lock(&r->lock);
	list_for_each(it, &r->sets) {
		const struct stat_set *s = list_entry(it, struct stat_set, node);

		if (said_before(r, s))
			continue;
		for (const struct stat_row *row = s->rows; row->name != NULL; row++)
			say_metric(r, s, row, out);
	}
	pthread_mutex_unlock(&r->lock);
}

char *
stat_text(struct stat_registry *r, size_t max, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);
	bool failed;

	if (f == NULL)
		return NULL;
	if (r != NULL)
		stat_print(r, f);
	failed = ferror(f) != 0;
	if (fclose(f) != 0 || failed) {
		free(text);
		return NULL;
	}
	if (*len > max) {
		for (*len = max; *len > 0 && text[*len - 1] != '\n';)
			--*len;
		text[*len] = '\0';
	}
	return text;
}
