/* SPDX-License-Identifier: MIT */
/* conf.c - options: what the text of conf/parse.c means for the rows of conf.h.
 *
 * A change is made in a copy and the copy is swapped in when all of it is right, so that
 * a bad file leaves the running options alone. */
#include "conf/conf.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "conf/parse.h"

enum type { TYPE_text, TYPE_list, TYPE_number, TYPE_bytes, TYPE_time, TYPE_percent,
	TYPE_flag, TYPE_enum };

enum option {
#define X(section, name, type, dflt, min, max, live, help) OPT_##section##_##name,
	CONF_OPTIONS(X)
#undef X
	OPTIONS
};

static const struct option_row {
	struct conf_row row;		/* what others may see */
	enum type	type;
	size_t		off;		/* of the value in struct conf */
} rows[OPTIONS] = {
#define X(section, name, type, dflt, min, max, live, help)                      \
	{ { #section, #name, #type, dflt, min, max, live, help }, TYPE_##type,  \
	    offsetof(struct conf, section##_##name) },
	CONF_OPTIONS(X)
#undef X
};

/* One text that is being read. */
struct reader {
	struct conf *c;
	const char  *file;
	char	    *err;
	unsigned     line;		/* 0: not from a file */
	const char  *section;		/* NULL before the first */
	unsigned     seen[OPTIONS];	/* line that set it, 0: none */
};

static void __attribute__((format(printf, 5, 6)))
set_err(char err[CONF_ERR_MAX], const char *file, unsigned line, unsigned col,
    const char *fmt, ...)
{
	va_list ap;
	int n;

	if (line != 0)
		n = snprintf(err, CONF_ERR_MAX, "%.300s:%u:%u: ", file, line, col);
	else
		n = snprintf(err, CONF_ERR_MAX, "%.300s: ", file);
	va_start(ap, fmt);
	vsnprintf(err + n, CONF_ERR_MAX - (unsigned)n, fmt, ap);
	va_end(ap);
}

#define FAIL(r, col, ...) \
	(set_err((r)->err, (r)->file, (r)->line, (col), __VA_ARGS__), ERR_CONFIG)

/* ---- values in memory ---- */

static void *
at(const struct conf *c, const struct option_row *o)
{
	return (char *)c + o->off;
}

static void
free_list(struct conf_list *l)
{
	for (unsigned i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct conf_list){ 0 };
}

static void
free_value(struct conf *c, const struct option_row *o)
{
	if (o->type == TYPE_text) {
		free(*(char **)at(c, o));
		*(char **)at(c, o) = NULL;
	} else if (o->type == TYPE_list)
		free_list(at(c, o));
}

void
conf_fini(struct conf *c)
{
	for (unsigned i = 0; i < OPTIONS; i++)
		free_value(c, &rows[i]);
}

static int
add_item(struct conf_list *l, const char *item)
{
	char **v = realloc(l->v, (l->n + 1) * sizeof(*v));

	if (v == NULL)
		return -ENOMEM;
	l->v = v;
	if ((v[l->n] = strdup(item)) == NULL)
		return -ENOMEM;
	l->n++;
	return 0;
}

/* A deep copy; what @out had is not freed. 0 or -ENOMEM (then @out is empty). */
static int
copy(struct conf *out, const struct conf *from)
{
	int rc = 0;

	*out = *from;
	for (unsigned i = 0; i < OPTIONS; i++) {	/* nothing is shared */
		if (rows[i].type == TYPE_text)
			*(char **)at(out, &rows[i]) = NULL;
		else if (rows[i].type == TYPE_list)
			*(struct conf_list *)at(out, &rows[i]) =
			    (struct conf_list){ 0 };
	}
	for (unsigned i = 0; i < OPTIONS && rc == 0; i++) {
		const struct conf_list *l = at(from, &rows[i]);
		char *const *text = at(from, &rows[i]);

		if (rows[i].type == TYPE_text && *text != NULL &&
		    (*(char **)at(out, &rows[i]) = strdup(*text)) == NULL)
			rc = -ENOMEM;
		for (unsigned k = 0; rows[i].type == TYPE_list && k < l->n &&
		    rc == 0; k++)
			rc = add_item(at(out, &rows[i]), l->v[k]);
	}
	if (rc != 0)
		conf_fini(out);
	return rc;
}

/* ---- the words of an enum: "info:error,warn,info,debug" ---- */

/* Word number @i and its length; NULL after the last. */
static const char *
enum_word(const struct option_row *o, unsigned i, size_t *n)
{
	const char *p = strchr(o->row.dflt, ':');

	for (assert(p != NULL); p != NULL && i > 0; i--)
		p = strchr(p + 1, ',');
	if (p != NULL)
		*n = strcspn(++p, ",");
	return p;
}

static int
enum_find(const struct option_row *o, const char *s, unsigned *out)
{
	const char *word;
	size_t n;

	for (unsigned i = 0; (word = enum_word(o, i, &n)) != NULL; i++)
		if (strlen(s) == n && memcmp(word, s, n) == 0) {
			*out = i;
			return 0;
		}
	return -EINVAL;
}

/* ---- one value from text ---- */

static void
bound_text(const struct option_row *o, uint64_t v, char out[CONF_NUMBER_TEXT])
{
	if (o->type == TYPE_bytes)
		conf_bytes_text(v, out);
	else if (o->type == TYPE_time)
		conf_time_text(v, out);
	else
		snprintf(out, CONF_NUMBER_TEXT, "%" PRIu64 "%s", v,
		    o->type == TYPE_percent ? "%" : "");
}

static int
set_number(struct reader *r, const struct option_row *o, const char *s,
    unsigned col)
{
	char min[CONF_NUMBER_TEXT], max[CONF_NUMBER_TEXT];
	const char *why = NULL;
	uint64_t v = 0;
	int rc = o->type == TYPE_bytes ? conf_bytes(s, &v, &why) :
	    o->type == TYPE_time ? conf_time(s, &v, &why) :
	    o->type == TYPE_percent ? conf_percent(s, &v, &why) :
	    conf_number(s, &v, &why);

	if (rc != 0)
		return FAIL(r, col, "%s: %s, not '%.40s'", o->row.name, why, s);
	if (v < o->row.min || v > o->row.max) {
		bound_text(o, o->row.min, min);
		bound_text(o, o->row.max, max);
		return FAIL(r, col, "%s: '%.40s' is not within %s to %s",
		    o->row.name, s, min, max);
	}
	if (o == &rows[OPT_cluster_chunk_size] && (v & (v - 1)) != 0)
		return FAIL(r, col, "%s: '%.40s' is not a power of two",
		    o->row.name, s);
	*(uint64_t *)at(r->c, o) = v;
	return 0;
}

static int
set_text(struct reader *r, const struct option_row *o, const char *s,
    unsigned col)
{
	size_t n = strlen(s);
	char *copied;

	if (n == 0 && o->row.min > 0)
		return FAIL(r, col, "%s: must not be empty", o->row.name);
	if (n < o->row.min || n > o->row.max)
		return FAIL(r, col, "%s: longer than %" PRIu64 " bytes",
		    o->row.name, o->row.max);
	if (o == &rows[OPT_node_address] && !conf_is_ip(s))
		return FAIL(r, col, "%s: expected an IP address, not '%.60s'",
		    o->row.name, s);
	if ((copied = strdup(s)) == NULL)
		return -ENOMEM;
	free_value(r->c, o);
	*(char **)at(r->c, o) = copied;
	return 0;
}

static int
check_item(struct reader *r, const struct option_row *o,
    const struct conf_list *l, const char *s, unsigned col)
{
	if (l->n >= o->row.max)
		return FAIL(r, col, "%s: more than %" PRIu64 " items",
		    o->row.name, o->row.max);
	if (o == &rows[OPT_manager_addresses] && !conf_is_ip_port(s))
		return FAIL(r, col, "%s: expected ip:port, not '%.60s'",
		    o->row.name, s);
	for (unsigned i = 0; i < l->n; i++)
		if (strcmp(l->v[i], s) == 0)
			return FAIL(r, col, "%s: '%.60s' is there twice",
			    o->row.name, s);
	return 0;
}

static int
set_list(struct reader *r, const struct option_row *o, struct conf_words *w,
    unsigned col)
{
	struct conf_list l = { 0 };
	char word[CONF_WORD_MAX];
	const char *why = NULL;
	size_t off;
	int rc, got;

	while ((got = conf_words_next(w, word, &off, &why)) > 0) {
		rc = check_item(r, o, &l, word, col + (unsigned)off);
		if (rc != 0 || (rc = add_item(&l, word)) != 0)
			goto fail;
	}
	rc = got < 0 ?
	    FAIL(r, col + (unsigned)off, "%s: %s", o->row.name, why) :
	    l.n < o->row.min ?
	    FAIL(r, col, "%s: must not be empty", o->row.name) : 0;
	if (rc != 0)
		goto fail;
	free_value(r->c, o);
	*(struct conf_list *)at(r->c, o) = l;
	return 0;
fail:
	free_list(&l);
	return rc;
}

static int
set_word(struct reader *r, const struct option_row *o, const char *s,
    unsigned col)
{
	const char *why;
	bool flag;
	unsigned i;

	switch (o->type) {
	case TYPE_text:
		return set_text(r, o, s, col);
	case TYPE_number: case TYPE_bytes: case TYPE_time: case TYPE_percent:
		return set_number(r, o, s, col);
	case TYPE_flag:
		if (conf_flag(s, &flag, &why) != 0)
			return FAIL(r, col, "%s: %s, not '%.40s'", o->row.name,
			    why, s);
		*(bool *)at(r->c, o) = flag;
		return 0;
	case TYPE_enum:
		if (enum_find(o, s, &i) != 0)
			return FAIL(r, col, "%s: expected one of %s, not '%.40s'",
			    o->row.name, strchr(o->row.dflt, ':') + 1, s);
		*(unsigned *)at(r->c, o) = i;
		return 0;
	case TYPE_list:
		break;
	}
	assert(!"a list is no word");
	return -EINVAL;
}

/* @col: of the value.  0, ERR_CONFIG, -ENOMEM. */
static int
set_value(struct reader *r, const struct option_row *o, const char *value,
    size_t n, unsigned col)
{
	char word[CONF_WORD_MAX];
	struct conf_words w;
	const char *why = NULL;
	size_t off;

	conf_words_init(&w, value, n, o->type == TYPE_list, r->line != 0);
	if (o->type == TYPE_list)
		return set_list(r, o, &w, col);
	if (conf_words_next(&w, word, &off, &why) < 0)
		return FAIL(r, col + (unsigned)off, "%s: %s", o->row.name, why);
	return set_word(r, o, word, col + (unsigned)off);
}

/* ---- names ---- */

static bool
named(const char *have, const char *name, size_t n)
{
	return strlen(have) == n && memcmp(have, name, n) == 0;
}

static const struct option_row *
find(const char *section, size_t section_n, const char *name, size_t n)
{
	for (unsigned i = 0; i < OPTIONS; i++)
		if (named(rows[i].row.section, section, section_n) &&
		    named(rows[i].row.name, name, n))
			return &rows[i];
	return NULL;
}

static const char *
find_section(const char *name, size_t n)
{
	for (unsigned i = 0; i < OPTIONS; i++)
		if (named(rows[i].row.section, name, n))
			return rows[i].row.section;
	return NULL;
}

/* Edits that make @a out of @b: insert, remove or replace a byte (Levenshtein). */
static unsigned
distance(const char *a, const char *b, size_t bn)
{
	unsigned row[34], an = (unsigned)strlen(a);

	if (bn > 32 || an > 32)
		return 99;
	for (unsigned k = 0; k <= bn; k++)
		row[k] = k;
	for (unsigned i = 1; i <= an; i++) {
		unsigned diagonal = row[0]++;

		for (unsigned k = 1; k <= bn; k++) {
			unsigned best = diagonal + (a[i - 1] != b[k - 1]);

			diagonal = row[k];
			if (row[k] + 1 < best)
				best = row[k] + 1;
			if (row[k - 1] + 1 < best)
				best = row[k - 1] + 1;
			row[k] = best;
		}
	}
	return row[bn];
}

/* Sets r->err for a name that is not there, with what may have been meant: the nearest
 * in the section, else the section that has that name. */
static int
unknown_option(struct reader *r, const char *section, const char *name, size_t n,
    unsigned col)
{
	const char *near = NULL;
	unsigned best = n < 4 ? 2 : 3;		/* at most 1 or 2 edits */

	for (unsigned i = 0; i < OPTIONS; i++) {
		unsigned d = distance(rows[i].row.name, name, n);

		if (strcmp(rows[i].row.section, section) == 0 && d < best) {
			best = d;
			near = rows[i].row.name;
		}
	}
	if (near != NULL)
		return FAIL(r, col, "unknown option '%.*s' in [%s]; "
		    "did you mean '%s'?", (int)n, name, section, near);
	for (unsigned i = 0; i < OPTIONS; i++)
		if (named(rows[i].row.name, name, n))
			return FAIL(r, col, "unknown option '%.*s' in [%s]; "
			    "there is one in [%s]", (int)n, name, section,
			    rows[i].row.section);
	return FAIL(r, col, "unknown option '%.*s' in [%s]",
	    (int)(n < 64 ? n : 64), name, section);
}

static int
unknown_section(struct reader *r, const char *name, size_t n, unsigned col)
{
	for (unsigned i = 0; i < OPTIONS; i++)
		if (distance(rows[i].row.section, name, n) <= 2)
			return FAIL(r, col, "unknown section [%.*s]; "
			    "did you mean [%s]?", (int)n, name,
			    rows[i].row.section);
	return FAIL(r, col, "unknown section [%.*s]", (int)(n < 64 ? n : 64), name);
}

/* ---- files ---- */

static int
read_line(struct reader *r, const char *text, size_t n)
{
	const struct option_row *o;
	struct conf_line line;
	const char *why = NULL;
	unsigned col, *seen;
	int rc;

	if (conf_line_cut(text, n, &line, &col, &why) != 0)
		return FAIL(r, col, "%s", why);
	switch (line.kind) {
	case CONF_LINE_BLANK:
		return 0;
	case CONF_LINE_SECTION:
		r->section = find_section(line.name, line.name_n);
		return r->section != NULL ? 0 :
		    unknown_section(r, line.name, line.name_n, line.name_col);
	case CONF_LINE_OPTION:
		break;
	}
	if (r->section == NULL)
		return FAIL(r, line.name_col, "option before the first [section]");
	o = find(r->section, strlen(r->section), line.name, line.name_n);
	if (o == NULL)
		return unknown_option(r, r->section, line.name, line.name_n,
		    line.name_col);
	seen = &r->seen[o - rows];
	if (*seen != 0)
		return FAIL(r, line.name_col, "'%s' in [%s] is there twice, "
		    "first in line %u", o->row.name, r->section, *seen);
	rc = set_value(r, o, line.value, line.value_n, line.value_col);
	*seen = r->line;
	return rc;
}

static int
read_lines(struct reader *r, const char *text, size_t n)
{
	const char *p = text, *end = text + n;
	int rc = 0;

	if (n > CONF_FILE_MAX)
		return FAIL(r, 0, "larger than 1 MiB");
	if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		p += 3;			/* an editor's byte order mark */
	while (p < end && rc == 0) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((nl != NULL ? nl : end) - p);

		r->line++;
		rc = read_line(r, p, len);
		p += len + (nl != NULL);
	}
	return rc;
}

/* The rules of conf_check(); @which are the options to point at. */
static const char *
broken_rule(const struct conf *c, enum option which[2])
{
	which[0] = OPT_manager_beat;
	which[1] = OPT_manager_lease;
	if (c->manager_beat * 2 >= c->manager_lease)
		return "manager.beat must be less than half of manager.lease";
	which[0] = OPT_storage_loops;
	which[1] = OPT_storage_port;
	if (c->storage_port != 0 && c->storage_port + c->storage_loops - 1 > 65535)
		return "storage.port + storage.loops goes beyond port 65535";
	return NULL;
}

int
conf_check(const struct conf *c, char err[CONF_ERR_MAX])
{
	enum option which[2];
	const char *why = broken_rule(c, which);

	if (why == NULL)
		return 0;
	snprintf(err, CONF_ERR_MAX, "%s", why);
	return ERR_CONFIG;
}

int
conf_parse(struct conf *c, const char *file, const char *text, size_t n,
    char err[CONF_ERR_MAX])
{
	struct conf fresh;
	struct reader r = { .c = &fresh, .file = file, .err = err };
	enum option which[2];
	const char *why;
	int rc;

	if ((rc = copy(&fresh, c)) == 0) {
		rc = read_lines(&r, text, n);
		if (rc == 0 && (why = broken_rule(&fresh, which)) != NULL) {
			r.line = r.seen[which[r.seen[which[0]] == 0]];
			rc = FAIL(&r, 1, "%s", why);
		}
		if (rc != 0)
			conf_fini(&fresh);
	}
	if (rc == -ENOMEM)
		set_err(err, file, 0, 0, "out of memory");
	if (rc != 0)
		return rc;
	conf_fini(c);
	*c = fresh;
	return 0;
}

/* At most @cap bytes; *n is what there was. 0 or -errno. */
static int
slurp(const char *path, char *buf, size_t cap, size_t *n)
{
	FILE *f = fopen(path, "re");
	int rc;

	if (f == NULL)
		return -errno;
	errno = 0;
	*n = fread(buf, 1, cap, f);
	rc = ferror(f) ? (errno != 0 ? -errno : -EIO) : 0;
	fclose(f);
	return rc;
}

int
conf_load(struct conf *c, const char *path, char err[CONF_ERR_MAX])
{
	char *text = malloc(CONF_FILE_MAX + 1);
	size_t n = 0;
	int rc;

	if (text == NULL)
		rc = -ENOMEM;
	else
		rc = slurp(path, text, CONF_FILE_MAX + 1, &n);
	if (rc != 0)
		set_err(err, path, 0, 0, "%s", err_text(rc));
	else
		rc = conf_parse(c, path, text, n, err);
	free(text);
	return rc;
}

int
conf_set(struct conf *c, const char *name, const char *value,
    char err[CONF_ERR_MAX])
{
	struct reader r = { .c = c, .file = name, .err = err };
	const char *dot = strchr(name, '.'), *section;
	const struct option_row *o;
	int rc;

	if (dot == NULL)
		return FAIL(&r, 0, "expected section.option");
	section = find_section(name, (size_t)(dot - name));
	if (section == NULL)
		return unknown_section(&r, name, (size_t)(dot - name), 0);
	o = find(section, strlen(section), dot + 1, strlen(dot + 1));
	if (o == NULL)
		return unknown_option(&r, section, dot + 1, strlen(dot + 1), 0);
	for (const char *p = value; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return FAIL(&r, 0, "control character");
	rc = set_value(&r, o, value, strlen(value), 0);
	if (rc == -ENOMEM)
		set_err(err, name, 0, 0, "out of memory");
	return rc;
}

int
conf_init(struct conf *c)
{
	char err[CONF_ERR_MAX];
	struct reader r = { .c = c, .file = "defaults", .err = err };

	memset(c, 0, sizeof(*c));
	for (unsigned i = 0; i < OPTIONS; i++) {
		size_t n = strlen(rows[i].row.dflt);
		int rc;

		if (rows[i].type == TYPE_enum)
			n = strcspn(rows[i].row.dflt, ":");
		rc = set_value(&r, &rows[i], rows[i].row.dflt, n, 0);
		if (rc == -ENOMEM) {
			conf_fini(c);
			return rc;
		}
		assert(rc == 0);
	}
	return 0;
}

/* ---- text out ---- */

/* As it is when nothing in it can be taken for syntax, else in quotes. */
static void
print_text(FILE *out, const char *s)
{
	if (s[0] != '\0' && strpbrk(s, " \t\"\\#;,") == NULL) {
		fputs(s, out);
		return;
	}
	fputc('"', out);
	for (; *s != '\0'; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', out);
		fputc(*s, out);
	}
	fputc('"', out);
}

static void
print_value(FILE *out, const struct conf *c, const struct option_row *o)
{
	const struct conf_list *l = at(c, o);
	char text[CONF_NUMBER_TEXT];
	const char *word;
	size_t n = 0;

	switch (o->type) {
	case TYPE_text:
		print_text(out, *(char **)at(c, o));
		break;
	case TYPE_list:
		for (unsigned i = 0; i < l->n; i++) {
			if (i > 0)
				fputs(", ", out);
			print_text(out, l->v[i]);
		}
		break;
	case TYPE_number: case TYPE_bytes: case TYPE_time: case TYPE_percent:
		bound_text(o, *(uint64_t *)at(c, o), text);
		fputs(text, out);
		break;
	case TYPE_flag:
		fputs(*(bool *)at(c, o) ? "yes" : "no", out);
		break;
	case TYPE_enum:
		word = enum_word(o, *(unsigned *)at(c, o), &n);
		fprintf(out, "%.*s", (int)n, word != NULL ? word : "");
		break;
	}
}

static bool
first_of_section(unsigned i)
{
	return i == 0 || strcmp(rows[i].row.section, rows[i - 1].row.section) != 0;
}

void
conf_print(const struct conf *c, FILE *out)
{
	for (unsigned i = 0; i < OPTIONS; i++) {
		if (first_of_section(i))
			fprintf(out, "%s[%s]\n", i == 0 ? "" : "\n",
			    rows[i].row.section);
		fprintf(out, "%s = ", rows[i].row.name);
		print_value(out, c, &rows[i]);
		fputc('\n', out);
	}
}

/* "Default 3s, from 200ms to 10min." and the like. */
static void
describe(const struct option_row *o, char *out, size_t cap)
{
	char min[CONF_NUMBER_TEXT], max[CONF_NUMBER_TEXT];
	int dflt_n = o->type == TYPE_enum ? (int)strcspn(o->row.dflt, ":") :
	    (int)strlen(o->row.dflt);
	int n = snprintf(out, cap, "default %.*s", dflt_n > 0 ? dflt_n : 4,
	    dflt_n > 0 ? o->row.dflt : "none");

	bound_text(o, o->row.min, min);
	bound_text(o, o->row.max, max);
	if (o->type == TYPE_number || o->type == TYPE_bytes ||
	    o->type == TYPE_time || o->type == TYPE_percent)
		snprintf(out + n, cap - (size_t)n, ", from %s to %s", min, max);
	else if (o->type == TYPE_enum)
		snprintf(out + n, cap - (size_t)n, ", one of %s",
		    strchr(o->row.dflt, ':') + 1);
	else if (o->type == TYPE_list)
		snprintf(out + n, cap - (size_t)n, ", at most %s", max);
}

void
conf_help(FILE *out, bool mdoc)
{
	for (unsigned i = 0; i < OPTIONS; i++) {
		const struct conf_row *w = &rows[i].row;
		char more[256];

		describe(&rows[i], more, sizeof(more));
		if (first_of_section(i)) {
			if (mdoc)
				fprintf(out, "%s.Ss [%s]\n.Bl -tag -width Ds\n",
				    i == 0 ? "" : ".El\n", w->section);
			else
				fprintf(out, "%s[%s]\n", i == 0 ? "" : "\n",
				    w->section);
		}
		if (mdoc)
			fprintf(out, ".It Cm %s No = Ar %s\n%c%s.\n%c%s%s.\n",
			    w->name, w->type,
			    w->help[0] - (w->help[0] >= 'a' && w->help[0] <= 'z' ?
			    'a' - 'A' : 0), w->help + 1, 'D', more + 1,
			    w->live ? "; may change while running" : "");
		else
			fprintf(out, "  %-20s %-8s %s\n%31s(%s%s)\n", w->name,
			    w->type, w->help, "", more, w->live ? ", live" : "");
	}
	if (mdoc)
		fputs(".El\n", out);
}

const struct conf_row *
conf_row_at(unsigned i)
{
	return i < OPTIONS ? &rows[i].row : NULL;
}
